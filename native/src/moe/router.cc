#include "moe/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "pccl/engine.h"

namespace pccl::moe {

namespace {

// DeepSeek's guard against a sum of gates that underflows.
constexpr float sum_min = 1e-20F;
constexpr Expert none = std::numeric_limits<Expert>::max();

void require(bool condition, const std::string& what) {
  if (!condition) throw EngineError({ErrorCode::invalid_argument, "router: " + what + ".", std::nullopt});
}

void check(const RouterOptions& options, std::span<const float> logits) {
  const std::string experts = std::to_string(options.experts);
  require(options.experts >= 1, "there must be at least one expert");
  require(options.slots_max >= 1 && options.slots_max <= options.experts,
          std::to_string(options.slots_max) + " slots per token can't be filled from " + experts + " experts");
  require(std::isfinite(options.scale), "the scale must be finite");
  require(options.probability_min > 0 && options.probability_min <= 1, "p must be above 0 and at most 1");
  require(options.groups >= 1 && options.experts % options.groups == 0,
          experts + " experts don't divide into " + std::to_string(options.groups) + " groups");
  require(options.groups_kept >= 1 && options.groups_kept <= options.groups,
          "at least one and at most all groups are kept, got " + std::to_string(options.groups_kept));
  require(options.masked_score == 0 || options.masked_score == -std::numeric_limits<float>::infinity(),
          "the score of masked experts must be 0 or -Infinity");
  require(options.masked_score == 0 || options.slots_max <= options.experts / options.groups * options.groups_kept,
          "the kept groups have fewer experts than a token needs");
  require(options.correction.empty() || options.correction.size() == options.experts,
          "there must be a correction for each expert, or none");
  for (const float correction : options.correction) require(std::isfinite(correction), "corrections must be finite");
  require(logits.size() % options.experts == 0,
          std::to_string(logits.size()) + " logits aren't whole tokens of " + experts + " experts");
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) continue;
    require(false, "the logit of token " + std::to_string(i / options.experts) + " for expert " +
                       std::to_string(i % options.experts) + " is " + std::to_string(logits[i]));
  }
}

// exp(logit - largest) for each, and their sum.
float exponentials(std::span<const float> logits, std::vector<float>& result) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  float sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    result[i] = std::exp(logits[i] - largest);
    sum += result[i];
  }
  return sum;
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

class TokenRouter {
 public:
  explicit TokenRouter(const RouterOptions& options)
      : options_(options), scores_(options.experts), choice_(options.experts), is_taken_(options.experts) {}

  void route(std::span<const float> logits, Routing& routing) {
    const std::size_t first = routing.experts.size();
    float sum = 1;
    if (options_.score == RouterScore::softmax) {
      sum = exponentials(logits, scores_);
      // Logits order experts as their probabilities do, and tell apart those whose probabilities round to 0.
      choice_.assign(logits.begin(), logits.end());
    } else {
      std::transform(logits.begin(), logits.end(), scores_.begin(), sigmoid);
      correct();
    }
    take(sum, routing.experts);
    float gate_sum = 0;
    for (std::size_t slot = first; slot < routing.experts.size(); ++slot) gate_sum += scores_[routing.experts[slot]];
    const float divisor = options_.renormalize ? gate_sum + sum_min : sum;
    for (std::size_t slot = first; slot < routing.experts.size(); ++slot) {
      routing.gates.push_back(scores_[routing.experts[slot]] / divisor * options_.scale);
    }
    routing.first_slot.push_back(static_cast<std::uint32_t>(routing.experts.size()));
  }

 private:
  // Scores for the choice: with the corrections, and without the groups that aren't kept.
  void correct() {
    choice_ = scores_;
    for (std::size_t i = 0; i < options_.correction.size(); ++i) choice_[i] += options_.correction[i];
    if (options_.groups_kept == options_.groups) return;
    const std::size_t size = options_.experts / options_.groups;
    group_scores_.clear();
    for (std::uint32_t group = 0; group < options_.groups; ++group) {
      float best = choice_[group * size];
      float second = size == 1 ? 0 : -std::numeric_limits<float>::infinity();
      for (std::size_t i = group * size + 1; i < (group + 1) * size; ++i) {
        second = std::max(second, std::min(best, choice_[i]));
        best = std::max(best, choice_[i]);
      }
      group_scores_.push_back({best + second, group});
    }
    std::stable_sort(group_scores_.begin(), group_scores_.end(),
                     [](const GroupScore& a, const GroupScore& b) { return a.score > b.score; });
    for (std::size_t i = options_.groups_kept; i < options_.groups; ++i) {
      std::fill_n(choice_.begin() + static_cast<std::ptrdiff_t>(group_scores_[i].group * size), size,
                  options_.masked_score);
    }
  }

  void take(float sum, std::vector<Expert>& experts) {
    std::fill(is_taken_.begin(), is_taken_.end(), 0);
    float probability = 0;
    for (std::uint32_t slot = 0; slot < options_.slots_max; ++slot) {
      Expert best = none;
      for (Expert expert = 0; expert < options_.experts; ++expert) {
        if (is_taken_[expert] == 0 && (best == none || choice_[expert] > choice_[best])) best = expert;
      }
      is_taken_[best] = 1;
      experts.push_back(best);
      probability += scores_[best] / sum;
      if (options_.probability_min < 1 && probability >= options_.probability_min) return;
    }
  }

  struct GroupScore {
    float score;
    std::uint32_t group;
  };
  const RouterOptions& options_;
  std::vector<float> scores_;  // [experts]: gates before they are normalized
  std::vector<float> choice_;  // [experts]: what the choice goes by
  std::vector<std::uint8_t> is_taken_;
  std::vector<GroupScore> group_scores_;
};

void check(const RouterOptions& options, std::size_t tokens, const Routing& routing,
           std::span<const float> gate_gradients) {
  require(routing.first_slot.size() == tokens + 1 && routing.first_slot.front() == 0 &&
              std::is_sorted(routing.first_slot.begin(), routing.first_slot.end()) &&
              routing.first_slot.back() == routing.experts.size(),
          "the routing isn't one of these logits: its slots don't fit " + std::to_string(tokens) + " tokens");
  require(gate_gradients.size() == routing.experts.size(),
          "there must be a gradient for each of " + std::to_string(routing.experts.size()) + " slots, got " +
              std::to_string(gate_gradients.size()));
  for (const Expert expert : routing.experts) {
    require(expert < options.experts, "expert " + std::to_string(expert) + " of the routing doesn't exist");
  }
}

}  // namespace

Routing route(const RouterOptions& options, std::span<const float> logits) {
  check(options, logits);
  const std::size_t tokens = logits.size() / options.experts;
  Routing routing;
  routing.first_slot.push_back(0);
  routing.first_slot.reserve(tokens + 1);
  routing.experts.reserve(tokens * options.slots_max);
  routing.gates.reserve(tokens * options.slots_max);
  TokenRouter router(options);
  for (std::size_t token = 0; token < tokens; ++token) {
    router.route(logits.subspan(token * options.experts, options.experts), routing);
  }
  return routing;
}

std::vector<float> route_gradient(const RouterOptions& options, std::span<const float> logits, const Routing& routing,
                                  std::span<const float> gate_gradients) {
  check(options, logits);
  const std::size_t tokens = logits.size() / options.experts;
  check(options, tokens, routing, gate_gradients);
  std::vector<float> gradients(logits.size());
  std::vector<float> scores(options.experts);
  for (std::size_t token = 0; token < tokens; ++token) {
    const std::span<const float> row = logits.subspan(token * options.experts, options.experts);
    const std::span<float> gradient = std::span(gradients).subspan(token * options.experts, options.experts);
    const std::uint32_t first = routing.first_slot[token];
    const std::uint32_t last = routing.first_slot[token + 1];
    const bool is_softmax = options.score == RouterScore::softmax;
    float divisor = 1;
    if (is_softmax) {
      divisor = exponentials(row, scores);
    } else {
      std::transform(row.begin(), row.end(), scores.begin(), sigmoid);
    }
    if (options.renormalize) {
      divisor = sum_min;
      for (std::uint32_t slot = first; slot < last; ++slot) divisor += scores[routing.experts[slot]];
    }
    // With gates w = scale * s / divisor, `mean` is the part of the gradient that comes through the divisor.
    float mean = 0;
    for (std::uint32_t slot = first; slot < last; ++slot) {
      mean += gate_gradients[slot] * scores[routing.experts[slot]] / divisor;
    }
    for (std::uint32_t slot = first; slot < last; ++slot) {
      gradient[routing.experts[slot]] += gate_gradients[slot] - (options.renormalize ? mean : 0);
    }
    for (Expert expert = 0; expert < options.experts; ++expert) {
      // A softmax over all experts has all of them in its divisor, the chosen ones once above or here.
      if (is_softmax && !options.renormalize) gradient[expert] -= mean;
      gradient[expert] *= options.scale * scores[expert] / divisor * (is_softmax ? 1 : 1 - scores[expert]);
    }
  }
  return gradients;
}

}  // namespace pccl::moe
