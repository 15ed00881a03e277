// The planners over random requests, so that sanitizers see every path: each plan is checked against the request by
// definition. What single plans should look like is tested in packages/moe-ep.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "moe/planner.h"
#include "pccl/engine.h"

namespace pccl::moe {

namespace {

PlanRequest random_request(std::mt19937& random) {
  const auto pick = [&](std::uint32_t max) { return static_cast<std::uint32_t>(random() % (max + 1)); };
  PlanRequest request;
  request.ranks = 1 + pick(15);
  request.experts = request.ranks * (1 + pick(7)) + pick(request.ranks - 1);
  request.owners.resize(request.experts);
  for (Rank& owner : request.owners) owner = pick(request.ranks - 1);
  request.counts.resize(std::size_t{request.ranks} * request.experts);
  const std::uint32_t scale = 1U << pick(16);
  std::vector<std::uint32_t> heat(request.experts);
  for (std::uint32_t& expert : heat) expert = pick(3) == 0 ? scale : pick(scale / 64 + 1);
  for (std::size_t i = 0; i < request.counts.size(); ++i) request.counts[i] = pick(heat[i % request.experts]);
  for (Rank rank = 0; rank < request.ranks; ++rank) {
    request.speeds.push_back(1 + pick(1));
    request.nodes.push_back(rank / 4);
    request.imports_max.push_back(pick(3) == 0 ? pick(2) : request.experts);
  }
  request.planner = static_cast<Planner>(pick(3));
  request.chunk_copies_min = 1 + pick(1) * pick(200);
  request.imbalance_min = pick(1) == 0 ? 0 : 1.3;
  request.cost = {1, static_cast<double>(pick(5)), static_cast<double>(pick(1000)), static_cast<double>(pick(5000)),
                  pick(1) * 0.5, pick(1) * 2.0};
  request.redundant_experts = request.ranks - request.experts % request.ranks;
  for (const std::uint32_t expert : heat) request.statistics.push_back(expert);
  return request;
}

Copies count(const PlanRequest& request, Rank source, Expert expert) {
  return request.counts[std::size_t{source} * request.experts + expert];
}

void expect_sound(const PlanRequest& request, const Plan& plan) {
  ASSERT_EQ(plan.first_interval.size(), request.experts + 1);
  std::vector<Copies> loads(request.ranks);
  std::vector<Copies> sent(std::size_t{request.ranks} * request.ranks);
  for (Expert expert = 0; expert < request.experts; ++expert) {
    Copies position = 0;
    Rank source = 0;
    Copies source_end = count(request, 0, expert);
    for (std::uint32_t i = plan.first_interval[expert]; i < plan.first_interval[expert + 1]; ++i) {
      const Interval& interval = plan.intervals[i];
      ASSERT_EQ(interval.start, position);
      ASSERT_LT(interval.rank, request.ranks);
      for (; position < interval.end; ++position) {
        while (source_end <= position) source_end += count(request, ++source, expert);
        ++sent[std::size_t{source} * request.ranks + interval.rank];
      }
      loads[interval.rank] += interval.end - interval.start;
    }
    Copies total = 0;
    for (Rank rank = 0; rank < request.ranks; ++rank) total += count(request, rank, expert);
    ASSERT_EQ(position, total);
  }
  EXPECT_EQ(loads, plan.loads_after);
  EXPECT_EQ(sent, plan.sent_after);
  EXPECT_EQ(plan.is_applied, !plan.loans.empty());
}

void expect_fair_loans(const PlanRequest& request, const Plan& plan) {
  std::vector<std::uint32_t> imports(request.ranks);
  for (std::size_t i = 0; i < plan.loans.size(); ++i) {
    const Loan& loan = plan.loans[i];
    EXPECT_GE(loan.copies, request.chunk_copies_min);
    EXPECT_NE(loan.target, request.owners[loan.expert]);
    ++imports[loan.target];
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(plan.loans[j].expert == loan.expert && plan.loans[j].target == loan.target);
    }
  }
  for (Rank rank = 0; rank < request.ranks; ++rank) EXPECT_LE(imports[rank], request.imports_max[rank]);
}

}  // namespace

TEST(MoePlanner, KeepsItsRulesOnRandomRequests) {
  std::mt19937 random(1);
  for (int i = 0; i < 400; ++i) {
    const PlanRequest request = random_request(random);
    SCOPED_TRACE("request " + std::to_string(i) + ", planner " + std::to_string(static_cast<int>(request.planner)));
    const Plan plan = make_plan(request);
    expect_sound(request, plan);
    if (request.planner == Planner::lla || request.planner == Planner::automatic) expect_fair_loans(request, plan);
    if (request.planner == Planner::automatic) {
      EXPECT_LE(plan.after.step_seconds, plan.before.step_seconds);
    }
    const Plan again = make_plan(request);
    EXPECT_EQ(again.loads_after, plan.loads_after);
    EXPECT_EQ(again.sent_after, plan.sent_after);
    EXPECT_EQ(again.after.rank_seconds, plan.after.rank_seconds);
  }
}

TEST(MoePlanner, MakesStrictPlansThatCoverEveryCopy) {
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    PlanRequest request = random_request(random);
    SCOPED_TRACE("request " + std::to_string(i));
    request.experts -= request.experts % request.ranks;
    request.counts.resize(std::size_t{request.ranks} * request.experts);
    request.owners.resize(request.experts);
    for (Expert expert = 0; expert < request.experts; ++expert) {
      request.owners[expert] = expert / (request.experts / request.ranks);
    }
    request.planner = Planner::lla;
    request.strict_reference = true;
    request.capacity_factor = 0.5 + 0.25 * (i % 5);
    Plan plan = make_plan(request);
    plan.is_applied = !plan.loans.empty();
    expect_sound(request, plan);
  }
}

TEST(MoePlanner, RefusesRequestsThatContradictThemselves) {
  std::mt19937 random(3);
  const auto refused = [&](auto&& change) {
    PlanRequest request = random_request(random);
    change(request);
    try {
      make_plan(request);
    } catch (const EngineError& error) {
      return error.error().code == ErrorCode::invalid_argument;
    }
    return false;
  };
  EXPECT_TRUE(refused([](PlanRequest& request) { request.counts.pop_back(); }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.counts[0] = -1; }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.counts[0] = copies_max + 1; }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.owners[0] = request.ranks; }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.ranks = request.experts + 1; }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.speeds[0] = 0; }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.nodes.clear(); }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.cost.copy_seconds = 0; }));
  EXPECT_TRUE(refused([](PlanRequest& request) { request.chunk_copies_min = 0; }));
}

}  // namespace pccl::moe
