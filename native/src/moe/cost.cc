#include "moe/cost.h"

#include <algorithm>

namespace pccl::moe {

CostEvaluator::CostEvaluator(const Workload& work, const CostModel& cost)
    : work_(work),
      cost_(cost),
      choice_(work),
      native_seconds_(work.request.ranks),
      native_traffic_(work.request.ranks),
      seconds_(work.request.ranks),
      transfers_(work.request.ranks),
      traffic_(work.request.ranks),
      lent_(work.request.experts) {
  const PlanRequest& request = work.request;
  for (Expert expert = 0; expert < request.experts; ++expert) {
    if (work.expert_copies[expert] == 0) continue;
    const Rank owner = request.owners[expert];
    native_seconds_[owner] += (static_cast<double>(work.expert_copies[expert]) * cost_.copy_seconds +
                               cost_.expert_seconds) /
                              request.speeds[owner];
  }
  if (has_traffic()) {
    add_traffic_of(work.sent);
    native_traffic_ = traffic_;
  }
}

double CostEvaluator::step_seconds(std::span<const Loan> loans) {
  add_loans(loans);
  traffic_ = native_traffic_;
  if (has_traffic() && !loans.empty()) {
    ShareList shares(work_, loans);
    for (const Expert expert : shares.lent()) {
      const Rank owner = work_.request.owners[expert];
      for (Rank source = 0; source < work_.request.ranks; ++source) {
        add_traffic({source, owner, work_.count(source, expert)}, -1);
      }
      for (const Flow& flow : choice_.choose(expert, shares.of(expert))) add_traffic(flow, 1);
    }
  }
  return finish(!loans.empty());
}

double CostEvaluator::step_seconds(std::span<const Loan> loans, std::span<const Copies> sent) {
  add_loans(loans);
  std::fill(traffic_.begin(), traffic_.end(), Traffic{});
  if (has_traffic()) add_traffic_of(sent);
  return finish(!loans.empty());
}

void CostEvaluator::add_loans(std::span<const Loan> loans) {
  const PlanRequest& request = work_.request;
  seconds_ = native_seconds_;
  std::fill(transfers_.begin(), transfers_.end(), Traffic{});
  for (const Loan& loan : loans) {
    const Rank owner = request.owners[loan.expert];
    const double copy_seconds = static_cast<double>(loan.copies) * cost_.copy_seconds;
    seconds_[owner] -= copy_seconds / request.speeds[owner];
    const double expert_seconds = loan.copies > 0 ? cost_.expert_seconds : 0;
    seconds_[loan.target] += (copy_seconds + expert_seconds) / request.speeds[loan.target];
    const double transfer = work_.same_node(owner, loan.target) ? cost_.transfer_seconds : cost_.far_transfer_seconds;
    transfers_[owner].sent += transfer;
    transfers_[loan.target].received += transfer;
    lent_[loan.expert] += loan.copies;
  }
  for (const Loan& loan : loans) {
    const Rank owner = request.owners[loan.expert];
    if (lent_[loan.expert] > 0 && lent_[loan.expert] == work_.expert_copies[loan.expert]) {
      seconds_[owner] -= cost_.expert_seconds / request.speeds[owner];
    }
    lent_[loan.expert] = 0;
  }
}

double CostEvaluator::finish(bool has_loans) {
  double slowest = 0;
  for (Rank rank = 0; rank < work_.request.ranks; ++rank) {
    if (has_loans) seconds_[rank] += cost_.lend_seconds;
    seconds_[rank] += std::max(transfers_[rank].sent, transfers_[rank].received) +
                      std::max(traffic_[rank].sent, traffic_[rank].received);
    slowest = std::max(slowest, seconds_[rank]);
  }
  return slowest;
}

void CostEvaluator::add_traffic_of(std::span<const Copies> sent) {
  const Rank ranks = work_.request.ranks;
  for (Rank source = 0; source < ranks; ++source) {
    for (Rank target = 0; target < ranks; ++target) {
      add_traffic({source, target, sent[std::size_t{source} * ranks + target]}, 1);
    }
  }
}

bool CostEvaluator::has_traffic() const {
  return cost_.cross_copy_seconds > 0 || cost_.far_cross_copy_seconds > 0;
}

void CostEvaluator::add_traffic(const Flow& flow, double sign) {
  if (flow.source == flow.target) return;
  const double copy_seconds =
      work_.same_node(flow.source, flow.target) ? cost_.cross_copy_seconds : cost_.far_cross_copy_seconds;
  const double seconds = sign * static_cast<double>(flow.copies) * copy_seconds;
  traffic_[flow.source].sent += seconds;
  traffic_[flow.target].received += seconds;
}

}  // namespace pccl::moe
