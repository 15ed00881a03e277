// Routers under the sanitizers: every kind of options on random logits, and the sums that their gates must keep. The
// formulas themselves are tested in packages/moe-ep.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "moe/router.h"
#include "moe/router_projection.h"
#include "pccl/engine.h"

namespace pccl::moe {

namespace {

std::vector<float> random_floats(std::size_t count, std::mt19937& random) {
  std::vector<float> values(count);
  std::normal_distribution<float> normal(0, 3);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace

TEST(MoeRouter, FillsSlotsAndScalesGates) {
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    RouterOptions options;
    options.groups = 1 + static_cast<std::uint32_t>(i % 4);
    options.experts = options.groups * static_cast<Expert>(1 + i % 7);
    options.groups_kept = 1 + static_cast<std::uint32_t>(i % options.groups);
    options.slots_max = options.experts / options.groups * options.groups_kept;
    options.score = i % 2 == 0 ? RouterScore::sigmoid : RouterScore::softmax;
    options.masked_score = i % 3 == 0 ? 0 : -std::numeric_limits<float>::infinity();
    options.scale = 2.5F;
    if (i % 5 == 0) options.correction = random_floats(options.experts, random);
    if (options.score == RouterScore::softmax && i % 4 == 1) options.probability_min = 0.7F;
    const std::size_t tokens = static_cast<std::size_t>(i % 9);
    const std::vector<float> logits = random_floats(tokens * options.experts, random);

    const Routing routing = route(options, logits);
    ASSERT_EQ(routing.first_slot.size(), tokens + 1);
    ASSERT_EQ(routing.gates.size(), routing.experts.size());
    for (std::size_t token = 0; token < tokens; ++token) {
      const std::uint32_t first = routing.first_slot[token];
      const std::uint32_t last = routing.first_slot[token + 1];
      ASSERT_GT(last, first);
      if (options.probability_min == 1) {
        ASSERT_EQ(last - first, options.slots_max);
      }
      float sum = 0;
      for (std::uint32_t slot = first; slot < last; ++slot) {
        ASSERT_LT(routing.experts[slot], options.experts);
        sum += routing.gates[slot];
      }
      EXPECT_NEAR(sum, options.scale, 1e-4);
    }
    // Gates add up to a constant, so moving all of them alike moves nothing.
    const std::vector<float> ones(routing.gates.size(), 1);
    for (const float gradient : route_gradient(options, logits, routing, ones)) EXPECT_NEAR(gradient, 0, 1e-5);
  }
}

TEST(MoeRouter, ProjectsBatchesOfAnySize) {
  std::mt19937 random(2);
  const std::size_t hidden = 19;
  const std::size_t experts = 13;
  const std::vector<float> weight = random_floats(hidden * experts, random);
  const std::vector<float> x = random_floats(hidden * 20, random);
  const std::vector<float> all = project_router(x, weight, {}, experts);
  for (std::size_t tokens = 0; tokens <= 20; ++tokens) {
    const std::vector<float> some = project_router(std::span(x).first(tokens * hidden), weight, {}, experts);
    ASSERT_EQ(some, std::vector<float>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(tokens * experts)));
    const ProjectionGradient gradient =
        project_router_gradient(std::span(x).first(tokens * hidden), weight, some, experts);
    EXPECT_EQ(gradient.x.size(), tokens * hidden);
  }
}

TEST(MoeRouter, RefusesWhatIsNoBatchOfTokens) {
  RouterOptions options;
  options.experts = 4;
  options.slots_max = 2;
  const std::vector<float> odd(6);
  EXPECT_THROW(route(options, odd), EngineError);
  EXPECT_THROW(route(options, std::vector<float>(4, std::numeric_limits<float>::infinity())), EngineError);
  options.slots_max = 5;
  EXPECT_THROW(route(options, std::vector<float>(4)), EngineError);
  EXPECT_THROW(project_router(odd, odd, {}, 4), EngineError);
}

}  // namespace pccl::moe
