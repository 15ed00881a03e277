// Which experts a token goes to, and with what weights (gates), as the common mixture-of-experts models choose them.
// The number of experts may differ from token to token, so slots are stored in one list with offsets.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/plan.h"

namespace pccl::moe {

// What the experts of a token compete with.
enum class RouterScore : std::uint8_t {
  softmax,  // probabilities over all experts
  sigmoid,  // each expert's own, plus a correction that counts for the choice only
};

struct RouterOptions {
  Expert experts = 0;
  std::uint32_t slots_max = 0;  // experts of a token, exactly (K), or at most if probability_min is below 1
  RouterScore score = RouterScore::softmax;
  bool renormalize = true;  // gates are divided by their sum
  float scale = 1;          // and multiplied by this
  // A token takes experts in falling score until their probabilities reach this sum: dynamic top-p routing
  // (Huang et al., arXiv 2403.07652). 1 always takes slots_max. Softmax only.
  float probability_min = 1;
  // Sigmoid only: experts in equal groups, of which those with the largest sums of their two best scores are kept.
  std::uint32_t groups = 1;
  std::uint32_t groups_kept = 1;
  float masked_score = 0;         // what the choice sees of the other groups' experts
  std::vector<float> correction;  // [experts], or empty
};

struct Routing {
  std::vector<std::uint32_t> first_slot;  // [tokens + 1]
  std::vector<Expert> experts;            // [slots], each token's by falling score, ties by lower number
  std::vector<float> gates;               // [slots]
};

// `logits` is [tokens * experts], finite. Throws EngineError with invalid_argument. A token's slots depend on its own
// logits alone.
Routing route(const RouterOptions& options, std::span<const float> logits);

// Gradient by the logits, [tokens * experts], from that by the gates, [slots]; the choice counts as constant.
std::vector<float> route_gradient(const RouterOptions& options, std::span<const float> logits, const Routing& routing,
                                  std::span<const float> gate_gradients);

}  // namespace pccl::moe
