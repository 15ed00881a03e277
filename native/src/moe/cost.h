// What a plan costs by the request's cost model. A rank's time is the sum of its computing, the larger direction of
// its weight transfers, and the larger direction of its cross-rank copies: nothing is assumed to overlap, so that a
// plan that is predicted to win does so without any help from the runtime.
#pragma once

#include <span>
#include <vector>

#include "moe/token_choice.h"
#include "moe/workload.h"

namespace pccl::moe {

class CostEvaluator {
 public:
  CostEvaluator(const Workload& work, const CostModel& cost);

  // Every loan counts as a transfer of its own. Rank seconds are valid until the next call.
  double step_seconds(std::span<const Loan> loans);
  // The same where copies go as `sent` [ranks * ranks] says, and not to where they are already.
  double step_seconds(std::span<const Loan> loans, std::span<const Copies> sent);
  std::span<const double> rank_seconds() const { return seconds_; }

 private:
  struct Traffic {
    double sent = 0;
    double received = 0;
  };
  void add_loans(std::span<const Loan> loans);
  void add_traffic_of(std::span<const Copies> sent);
  double finish(bool has_loans);
  bool has_traffic() const;
  void add_traffic(const Flow& flow, double sign);

  const Workload& work_;
  const CostModel cost_;
  TokenChoice choice_;
  std::vector<double> native_seconds_;   // [ranks]: computing without loans
  std::vector<Traffic> native_traffic_;  // [ranks]: seconds of cross-rank copies without loans
  std::vector<double> seconds_;
  std::vector<Traffic> transfers_;
  std::vector<Traffic> traffic_;
  std::vector<Copies> lent_;  // [experts], zero between calls
};

}  // namespace pccl::moe
