#include "moe/router_projection.h"

#include <algorithm>
#include <string>

#include "pccl/engine.h"

namespace pccl::moe {

namespace {

// Tokens whose sums are kept in the first-level cache while a row of weights is read once for all of them.
constexpr std::size_t block_tokens = 8;

void require(bool condition, const std::string& what) {
  if (!condition) throw EngineError({ErrorCode::invalid_argument, "router projection: " + what + ".", std::nullopt});
}

std::size_t hidden_size(std::span<const float> x, std::span<const float> weight, std::size_t experts) {
  require(experts >= 1 && !weight.empty() && weight.size() % experts == 0,
          std::to_string(weight.size()) + " weights aren't rows for " + std::to_string(experts) + " experts");
  const std::size_t hidden = weight.size() / experts;
  require(x.size() % hidden == 0,
          std::to_string(x.size()) + " values of x aren't whole tokens of " + std::to_string(hidden));
  return hidden;
}

// sum[i] += factor * row[i]
void add_scaled(float* sum, float factor, const float* row, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) sum[i] += factor * row[i];
}

}  // namespace

std::vector<float> project_router(std::span<const float> x, std::span<const float> weight,
                                  std::span<const float> bias, std::size_t experts) {
  const std::size_t hidden = hidden_size(x, weight, experts);
  require(bias.empty() || bias.size() == experts, "there must be a bias for each expert, or none");
  std::vector<float> transposed(weight.size());
  for (std::size_t expert = 0; expert < experts; ++expert) {
    for (std::size_t i = 0; i < hidden; ++i) transposed[i * experts + expert] = weight[expert * hidden + i];
  }
  const std::size_t tokens = x.size() / hidden;
  std::vector<float> logits(tokens * experts);
  for (std::size_t begin = 0; begin < tokens; begin += block_tokens) {
    const std::size_t end = std::min(tokens, begin + block_tokens);
    for (std::size_t i = 0; i < hidden; ++i) {
      for (std::size_t token = begin; token < end; ++token) {
        add_scaled(&logits[token * experts], x[token * hidden + i], &transposed[i * experts], experts);
      }
    }
  }
  if (!bias.empty()) {
    for (std::size_t token = 0; token < tokens; ++token) add_scaled(&logits[token * experts], 1, bias.data(), experts);
  }
  return logits;
}

ProjectionGradient project_router_gradient(std::span<const float> x, std::span<const float> weight,
                                           std::span<const float> logit_gradients, std::size_t experts) {
  const std::size_t hidden = hidden_size(x, weight, experts);
  const std::size_t tokens = x.size() / hidden;
  require(logit_gradients.size() == tokens * experts,
          "there must be a gradient for each logit of " + std::to_string(tokens) + " tokens, got " +
              std::to_string(logit_gradients.size()));
  ProjectionGradient gradient{std::vector<float>(x.size()), std::vector<float>(weight.size()),
                              std::vector<float>(experts)};
  for (std::size_t token = 0; token < tokens; ++token) {
    for (std::size_t expert = 0; expert < experts; ++expert) {
      const float factor = logit_gradients[token * experts + expert];
      gradient.bias[expert] += factor;
      // Most gates don't touch most logits.
      if (factor == 0) continue;
      add_scaled(&gradient.x[token * hidden], factor, &weight[expert * hidden], hidden);
      add_scaled(&gradient.weight[expert * hidden], factor, &x[token * hidden], hidden);
    }
  }
  return gradient;
}

}  // namespace pccl::moe
