#include "moe/planner.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "moe/automatic.h"
#include "moe/cost.h"
#include "moe/eplb.h"
#include "moe/least_loaded.h"
#include "moe/token_choice.h"
#include "moe/workload.h"
#include "pccl/engine.h"

namespace pccl::moe {

namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw EngineError({ErrorCode::invalid_argument, "planExperts: " + what + ".", std::nullopt});
}

bool is_duration(double seconds) { return std::isfinite(seconds) && seconds >= 0; }

void check(const PlanRequest& request) {
  const auto ranks = std::to_string(request.ranks);
  const auto experts = std::to_string(request.experts);
  require(request.ranks >= 1 && request.ranks <= ranks_max, "a plan is for 1 to 4096 ranks, got " + ranks);
  require(request.experts <= experts_max, "a plan is for at most 65536 experts, got " + experts);
  require(request.experts >= request.ranks, experts + " experts can't occupy " + ranks + " ranks");
  require(request.counts.size() == std::size_t{request.ranks} * request.experts,
          "counts must hold ranks times experts numbers");
  // Stops before a sum could overflow.
  Copies total = 0;
  const auto is_bad = [&](Copies copies) { return copies < 0 || (total += std::min(copies, copies_max)) > copies_max; };
  require(std::none_of(request.counts.begin(), request.counts.end(), is_bad),
          "counts must be 0 or more, and 2^53 or less in all");
  require(request.owners.size() == request.experts, "there must be a native rank for each expert");
  const auto stranger = std::find_if(request.owners.begin(), request.owners.end(),
                                     [&](Rank owner) { return owner >= request.ranks; });
  if (stranger != request.owners.end()) {
    require(false, "native rank " + std::to_string(*stranger) + " is none of the " + ranks + " ranks");
  }
  require(request.speeds.size() == request.ranks, "there must be a speed for each rank");
  require(std::all_of(request.speeds.begin(), request.speeds.end(),
                      [](double speed) { return std::isfinite(speed) && speed > 0; }),
          "speeds must be above 0 and finite");
  require(request.nodes.size() == request.ranks, "there must be a node for each rank");
  require(request.imports_max.size() == request.ranks, "there must be an import budget for each rank");
  require(std::isfinite(request.capacity_factor) && request.capacity_factor > 0 && request.capacity_factor <= 1e6,
          "capacityFactor must be above 0 and at most 1,000,000");
  require(request.chunk_copies_min >= 1 && request.chunk_copies_min <= copies_max, "minChunkCopies must be 1 or more");
  require(std::isfinite(request.imbalance_min), "minImbalance must be finite");
  const CostModel& cost = request.cost;
  require(is_duration(cost.copy_seconds) && cost.copy_seconds > 0, "costModel.copySeconds must be above 0");
  for (const double seconds : {cost.expert_seconds, cost.transfer_seconds, cost.far_transfer_seconds,
                               cost.cross_copy_seconds, cost.far_cross_copy_seconds, cost.lend_seconds}) {
    require(is_duration(seconds), "the times of a cost model must be 0 or more, and finite");
  }
  if (request.strict_reference) {
    require(request.planner == Planner::lla, "strictReference is a mode of the planner lla");
    require(request.experts % request.ranks == 0,
            "strictReference needs as many experts on each rank, got " + experts + " on " + ranks + " ranks");
  }
  if (request.planner == Planner::eplb) {
    require(request.statistics.size() == request.experts, "eplb needs a statistic for each expert");
    require(std::all_of(request.statistics.begin(), request.statistics.end(), is_duration),
            "statistics must be 0 or more, and finite");
    require(request.redundant_experts <= experts_max &&
                (request.experts + request.redundant_experts) % request.ranks == 0,
            "eplb fills all ranks alike: " + experts + " experts and " + std::to_string(request.redundant_experts) +
                " redundant ones don't divide by " + ranks + " ranks");
  }
}

// Intervals in the order in which the shares were made.
void lay_out_by_position(Plan& plan, const Workload& work, Expert expert, std::span<const Share> shares) {
  const Rank ranks = work.request.ranks;
  Rank source = 0;
  Copies source_end = work.count(0, expert);
  Copies position = 0;
  for (const Share& share : shares) {
    const Copies end = position + share.copies;
    plan.intervals.push_back({share.rank, position, end});
    while (position < end) {
      while (source_end <= position) source_end += work.count(++source, expert);
      const Copies until = std::min(end, source_end);
      plan.sent_after[std::size_t{source} * ranks + share.rank] += until - position;
      position = until;
    }
  }
}

// Intervals in the order of the sources, so that each source's copies go where TokenChoice sends them.
void lay_out_by_source(Plan& plan, const Workload& work, std::span<const Flow> flows, std::vector<Flow>& sorted) {
  sorted.assign(flows.begin(), flows.end());
  std::sort(sorted.begin(), sorted.end(), [](const Flow& a, const Flow& b) {
    return a.source != b.source ? a.source < b.source : a.target < b.target;
  });
  const std::size_t first = plan.intervals.size();
  Copies position = 0;
  for (const Flow& flow : sorted) {
    plan.sent_after[std::size_t{flow.source} * work.request.ranks + flow.target] += flow.copies;
    if (plan.intervals.size() > first && plan.intervals.back().rank == flow.target) {
      plan.intervals.back().end += flow.copies;
    } else {
      plan.intervals.push_back({flow.target, position, position + flow.copies});
    }
    position += flow.copies;
  }
}

void lay_out(Plan& plan, const Workload& work) {
  const PlanRequest& request = work.request;
  plan.sent_before = work.sent;
  plan.sent_after = work.sent;
  plan.first_interval.assign(1, 0);
  plan.intervals.reserve(request.experts + plan.loans.size() * 2);
  ShareList shares(work, plan.loans);
  TokenChoice choice(work);
  std::vector<Flow> sorted;
  for (Expert expert = 0; expert < request.experts; ++expert) {
    const Rank owner = request.owners[expert];
    if (shares.is_lent(expert)) {
      for (Rank source = 0; source < request.ranks; ++source) {
        plan.sent_after[std::size_t{source} * request.ranks + owner] -= work.count(source, expert);
      }
      if (request.strict_reference) {
        lay_out_by_position(plan, work, expert, shares.of(expert));
      } else {
        lay_out_by_source(plan, work, choice.choose(expert, shares.of(expert)), sorted);
      }
    } else if (work.expert_copies[expert] > 0) {
      plan.intervals.push_back({owner, 0, work.expert_copies[expert]});
    }
    plan.first_interval.push_back(static_cast<std::uint32_t>(plan.intervals.size()));
  }
}

Prediction predict(const CostEvaluator& evaluator, double step_seconds) {
  Prediction prediction;
  prediction.step_seconds = step_seconds;
  prediction.rank_seconds.assign(evaluator.rank_seconds().begin(), evaluator.rank_seconds().end());
  return prediction;
}

std::vector<Loan> choose_loans(const Workload& work) {
  const PlanRequest& request = work.request;
  switch (request.planner) {
    case Planner::ep:
      return {};
    case Planner::lla:
      if (request.strict_reference) return lend_as_reference(work);
      if (load_imbalance(work) < request.imbalance_min) return {};
      return lend_least_loaded(work);
    case Planner::automatic:
      return lend_by_cost(work);
    case Planner::eplb:
      return lend_by_statistics(work);
  }
  return {};
}

}  // namespace

Plan make_plan(const PlanRequest& request) {
  check(request);
  const Workload work(request);
  Plan plan;
  plan.loans = choose_loans(work);
  plan.is_applied = request.strict_reference
                        ? request.imbalance_min <= 0 || reference_imbalance(work) >= request.imbalance_min
                        : !plan.loans.empty();
  lay_out(plan, work);
  plan.loads_before = work.loads;
  plan.loads_after = work.loads;
  for (const Loan& loan : plan.loans) {
    plan.loads_after[request.owners[loan.expert]] -= loan.copies;
    plan.loads_after[loan.target] += loan.copies;
  }
  CostModel cost = request.cost;
  // EPLB moves weights between steps, not in them.
  if (request.planner == Planner::eplb) cost.transfer_seconds = cost.far_transfer_seconds = cost.lend_seconds = 0;
  CostEvaluator evaluator(work, cost);
  plan.before = predict(evaluator, evaluator.step_seconds({}));
  // The reference doesn't look at where tokens are.
  plan.after = predict(evaluator, request.strict_reference ? evaluator.step_seconds(plan.loans, plan.sent_after)
                                                           : evaluator.step_seconds(plan.loans));
  return plan;
}

}  // namespace pccl::moe
