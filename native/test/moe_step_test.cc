// Steps of expert parallelism between ranks of one process: whatever is routed and planned, each copy is computed once,
// by the rank that the plan names, from its token's row, and its result comes back to its slot.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "moe/planner.h"
#include "moe/step/dispatch.h"
#include "moe/step/rows.h"
#include "pccl/engine.h"

namespace pccl::moe {
namespace {

struct Routed {
  std::vector<std::uint32_t> first_slot{0};
  std::vector<std::uint32_t> experts;
  std::vector<float> gates;
};

std::uint32_t below(std::mt19937& random, std::uint32_t end) { return static_cast<std::uint32_t>(random() % end); }

// Tokens with none, one, several or all of the experts, the same one twice too.
Routed random_routing(std::mt19937& random, std::uint32_t tokens, Expert experts, std::uint32_t slots_max) {
  Routed routed;
  for (std::uint32_t token = 0; token < tokens; ++token) {
    for (std::uint32_t slot = below(random, slots_max + 1); slot > 0; --slot) {
      routed.experts.push_back(random() % 3 == 0 ? 0 : below(random, experts));
      routed.gates.push_back(static_cast<float>(random() % 1000) / 1000);
    }
    routed.first_slot.push_back(static_cast<std::uint32_t>(routed.experts.size()));
  }
  return routed;
}

std::uint32_t sum(const std::vector<std::uint32_t>& values) {
  return std::accumulate(values.begin(), values.end(), 0U);
}

// The blocks that `from` of all messages are for `to`, put together as an all-to-all does.
template <typename T>
std::vector<T> exchanged(const std::vector<std::vector<T>>& sent, const std::vector<std::vector<std::uint32_t>>& counts,
                         const std::vector<Rank>& blocks, std::uint32_t target_block) {
  std::vector<T> received;
  for (const Rank source : blocks) {
    const std::uint32_t begin =
        std::accumulate(counts[source].begin(), counts[source].begin() + target_block, std::uint32_t{0});
    const auto first = sent[source].begin() + begin;
    received.insert(received.end(), first, first + counts[source][target_block]);
  }
  return received;
}

struct World {
  Rank ranks = 0;
  Expert experts = 0;
  std::vector<Routed> routed;
  std::vector<Copies> counts;
  Step step;
};

World random_world(std::mt19937& random, bool has_gates) {
  World world;
  world.ranks = 1 + below(random, 6);
  world.experts = world.ranks + below(random, 8);
  world.counts.resize(std::size_t{world.ranks} * world.experts);
  for (Rank rank = 0; rank < world.ranks; ++rank) {
    world.routed.push_back(random_routing(random, below(random, 40), world.experts, 4));
    for (const std::uint32_t expert : world.routed[rank].experts) {
      ++world.counts[std::size_t{rank} * world.experts + expert];
    }
  }
  PlanRequest request;
  request.ranks = world.ranks;
  request.experts = world.experts;
  request.counts = world.counts;
  for (Expert expert = 0; expert < world.experts; ++expert) request.owners.push_back(below(random, world.ranks));
  request.speeds.assign(world.ranks, 1);
  request.nodes.assign(world.ranks, 0);
  request.imports_max.assign(world.ranks, world.experts);
  request.planner = random() % 4 == 0 ? Planner::ep : Planner::lla;
  request.chunk_copies_min = 1;
  request.imbalance_min = 0;
  const Plan plan = make_plan(request);
  world.step = {world.ranks, world.experts, world.counts, plan.intervals, plan.first_interval, {}, has_gates};
  for (Rank rank = 0; rank < world.ranks; ++rank) world.step.blocks.push_back(rank);
  std::shuffle(world.step.blocks.begin(), world.step.blocks.end(), random);
  check_step(world.step);
  return world;
}

TEST(Step, TakesEachCopyThereAndBack) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const World world = random_world(random, round % 2 == 0);
    const Step& step = world.step;
    std::vector<Outgoing> out;
    std::vector<std::vector<std::uint32_t>> rows;  // sent: rank and token, as one number
    std::vector<std::vector<std::uint32_t>> row_counts;
    std::vector<std::vector<std::uint32_t>> headers;
    std::vector<std::vector<std::uint32_t>> header_counts;
    for (Rank rank = 0; rank < world.ranks; ++rank) {
      const Routed& routed = world.routed[rank];
      out.push_back(address_copies(step, rank, routed.first_slot, routed.experts, routed.gates));
      rows.emplace_back();
      for (const std::uint32_t token : out[rank].tokens) rows[rank].push_back(rank * 1000 + token);
      row_counts.push_back(out[rank].row_counts);
      headers.push_back(out[rank].headers);
      header_counts.push_back(out[rank].header_counts);
      ASSERT_EQ(sum(out[rank].row_counts), out[rank].tokens.size());
      ASSERT_EQ(sum(out[rank].copy_counts), routed.experts.size());
    }

    // A result says whose token it is, and of which expert; gates come along.
    struct Result {
      std::uint32_t row = 0;
      Expert expert = 0;
      float gate = 0;
    };
    std::vector<std::vector<Result>> results(world.ranks);
    std::vector<std::vector<std::uint32_t>> result_counts;
    for (std::uint32_t block = 0; block < world.ranks; ++block) {
      result_counts.resize(world.ranks);
      const Rank rank = step.blocks[block];
      const Incoming in = receive_copies(step, rank, exchanged(headers, header_counts, step.blocks, block));
      const std::vector<std::uint32_t> received = exchanged(rows, row_counts, step.blocks, block);
      ASSERT_EQ(sum(in.row_counts), received.size());
      results[rank].resize(in.rows.size());
      std::size_t copy = 0;
      for (const CopyList& list : in.lists) {
        std::uint32_t before = 0;
        for (std::uint32_t i = 0; i < list.copies; ++i, ++copy) {
          const std::uint32_t row = received[in.rows[copy]];
          // Positions are by source rank, then by token.
          ASSERT_LE(before, row);
          before = row;
          results[rank][in.results[copy]] = {row, list.expert, step.has_gates ? in.gates[copy] : 0};
        }
      }
      ASSERT_EQ(copy, in.rows.size());
      result_counts[rank] = in.copy_counts;
    }
    for (std::uint32_t block = 0; block < world.ranks; ++block) {
      const Rank rank = step.blocks[block];
      const Routed& routed = world.routed[rank];
      const std::vector<Result> returned = exchanged(results, result_counts, step.blocks, block);
      ASSERT_EQ(returned.size(), routed.experts.size());
      for (std::uint32_t token = 0; token + 1 < routed.first_slot.size(); ++token) {
        for (std::uint32_t slot = routed.first_slot[token]; slot < routed.first_slot[token + 1]; ++slot) {
          const Result& result = returned[out[rank].places[slot]];
          ASSERT_EQ(result.row, rank * 1000 + token);
          ASSERT_EQ(result.expert, routed.experts[slot]);
          ASSERT_EQ(result.gate, step.has_gates ? routed.gates[slot] : 0);
        }
      }
    }
  }
}

TEST(Step, SendsATokenOnceToARankThatComputesItForSeveralExperts) {
  const std::vector<Copies> counts = {2, 2, 0, 0, 0, 0};
  Step step{2, 3, counts, {{1, 0, 2}, {1, 0, 2}}, {0, 1, 2, 2}, {0, 1}, false};
  const std::vector<std::uint32_t> first_slot = {0, 2, 4};
  const std::vector<std::uint32_t> experts = {0, 1, 1, 0};
  const Outgoing out = address_copies(step, 0, first_slot, experts, {});
  EXPECT_EQ(out.tokens, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_EQ(out.row_counts, (std::vector<std::uint32_t>{0, 2}));
  EXPECT_EQ(out.copy_counts, (std::vector<std::uint32_t>{0, 4}));
  EXPECT_EQ(out.headers, (std::vector<std::uint32_t>{0, 2, 0, 1, 0, 1}));
}

TEST(Step, RefusesWhatDoesntFit) {
  const std::vector<Copies> counts = {2, 1, 0, 3};
  const Step good{2, 2, counts, {{0, 0, 2}, {1, 0, 4}}, {0, 1, 2}, {0, 1}, false};
  check_step(good);
  const auto refused = [&](auto change) {
    Step step = good;
    change(step);
    EXPECT_THROW(check_step(step), EngineError);
  };
  refused([](Step& step) { step.intervals[1].end = 3; });
  refused([](Step& step) { step.intervals[1].start = 1; });
  refused([](Step& step) { step.intervals[0].rank = 2; });
  refused([](Step& step) { step.blocks = {0, 0}; });
  refused([](Step& step) { step.blocks = {0}; });
  refused([](Step& step) { step.first_interval = {0, 2, 1}; });

  const std::vector<std::uint32_t> first_slot = {0, 1, 3};
  const std::vector<std::uint32_t> experts = {0, 0, 1};
  EXPECT_NO_THROW(address_copies(good, 0, first_slot, experts, {}));
  EXPECT_THROW(address_copies(good, 1, first_slot, experts, {}), EngineError);
  const std::vector<std::uint32_t> none = {0, 0, 2};
  EXPECT_THROW(address_copies(good, 0, first_slot, none, {}), EngineError);
  const std::vector<std::uint32_t> falling = {0, 2, 1, 3};
  EXPECT_THROW(address_copies(good, 0, falling, experts, {}), EngineError);

  // Rank 1 computes expert 1's four copies: one of rank 0 and three of its own.
  const std::vector<std::uint32_t> headers = {1, 0, 3, 0, 1, 2};
  EXPECT_EQ(receive_copies(good, 1, headers).rows, (std::vector<std::uint32_t>{0, 1, 2, 3}));
  EXPECT_THROW(receive_copies(good, 1, std::span(headers).first(5)), EngineError);
  const std::vector<std::uint32_t> beyond = {1, 1, 3, 0, 1, 2};
  EXPECT_THROW(receive_copies(good, 1, beyond), EngineError);
}

TEST(Rows, AreSummedInTheOrderOfTheSlotsAndRoundedOnce) {
  constexpr std::size_t width = 19;
  const std::vector<std::uint32_t> first_slot = {0, 2, 2, 3};
  const std::vector<std::uint32_t> places = {2, 0, 1};
  const std::vector<float> gates = {0.5F, 3.0F, -1.25F};
  std::mt19937 random(2);
  std::vector<float> results(3 * width);
  std::vector<float> addend(3 * width);
  for (float& value : results) value = static_cast<float>(random() % 2000) / 700 - 1;
  for (float& value : addend) value = static_cast<float>(random() % 2000) / 900 - 1;
  const Combination combination{DType::f32, width, first_slot, places, gates, results.data(),
                                {{DType::f32, addend.data()}}};
  gemm::AlignedArray<float> sums;
  std::vector<float> into(3 * width);
  combine(combination, sums, into.data());
  for (std::size_t i = 0; i < width; ++i) {
    EXPECT_EQ(into[i], (gates[0] * results[2 * width + i] + gates[1] * results[i]) + addend[i]);
    EXPECT_EQ(into[width + i], addend[width + i]);
    EXPECT_EQ(into[2 * width + i], gates[2] * results[width + i] + addend[2 * width + i]);
  }
  std::vector<float> gradients(3);
  gate_gradients(combination, into.data(), gradients.data());
  for (std::size_t slot = 0; slot < 3; ++slot) {
    double exact = 0;
    const std::size_t token = slot < 2 ? 0 : 2;
    for (std::size_t i = 0; i < width; ++i) {
      exact += static_cast<double>(into[token * width + i]) * results[places[slot] * width + i];
    }
    EXPECT_NEAR(gradients[slot], exact, 1e-5 * (1 + std::abs(exact)));
  }
}

}  // namespace
}  // namespace pccl::moe
