// The router's linear layer. Every sum runs in a fixed order over its own row, so a token's logits have the same bits
// whatever batch it is in; the loops run side by side over the other dimension.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace pccl::moe {

// x is [tokens * hidden], weight [experts * hidden], bias [experts] or empty: logits = x weight^T + bias,
// [tokens * experts]. Throws EngineError with invalid_argument.
std::vector<float> project_router(std::span<const float> x, std::span<const float> weight,
                                  std::span<const float> bias, std::size_t experts);

struct ProjectionGradient {
  std::vector<float> x;       // [tokens * hidden]
  std::vector<float> weight;  // [experts * hidden], summed over the tokens in their order
  std::vector<float> bias;    // [experts]
};
ProjectionGradient project_router_gradient(std::span<const float> x, std::span<const float> weight,
                                           std::span<const float> logit_gradients, std::size_t experts);

}  // namespace pccl::moe
