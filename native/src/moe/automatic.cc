#include "moe/automatic.h"

#include <algorithm>
#include <cmath>

#include "moe/cost.h"
#include "moe/least_loaded.h"
#include "moe/locality.h"
#include "moe/threshold_greedy.h"

namespace pccl::moe {

namespace {

// Bisection gives the threshold to 2^-14 of the range; the grid finds plans with fewer loans than the fastest one.
constexpr int bisection_steps = 14;
constexpr int grid_points = 64;

// Each loan must lower the step's time by this part, less where it costs little: link and memory are shared with
// whatever the model doesn't know. Chosen on the golden cases (docs/decisions/013-planner.md).
constexpr double loan_gain_max = 0.055;
constexpr double loan_gain_per_transfer = 3.2;
// A larger world needs more loans for the same gain.
constexpr double loan_gain_ranks = 16;

class Search {
 public:
  explicit Search(const Workload& work) : work_(work), evaluator_(work, work.request.cost) {
    const PlanRequest& request = work.request;
    const double mean_seconds = static_cast<double>(work.total) * request.cost.copy_seconds / work.speed_sum;
    const auto gain = [&](double transfer_seconds) {
      const double part = std::min(loan_gain_max, loan_gain_per_transfer * transfer_seconds / mean_seconds);
      return 1 + part * std::min(1.0, loan_gain_ranks / request.ranks);
    };
    near_factor_ = gain(request.cost.transfer_seconds);
    far_factor_ = gain(request.cost.far_transfer_seconds);
    best_score_ = evaluator_.step_seconds({});
  }

  void consider(const std::vector<Loan>& loans) {
    double score = evaluator_.step_seconds(loans);
    if (score >= best_score_) return;
    for (const Loan& loan : loans) {
      score *= work_.same_node(work_.request.owners[loan.expert], loan.target) ? near_factor_ : far_factor_;
    }
    if (score >= best_score_) return;
    best_score_ = score;
    best_ = loans;
  }

  std::vector<Loan> take_best() {
    std::vector<Loan> local = with_local_choices(work_, best_);
    const double seconds = evaluator_.step_seconds(best_);
    return evaluator_.step_seconds(local) <= seconds ? local : best_;
  }

 private:
  const Workload& work_;
  CostEvaluator evaluator_;
  double near_factor_;
  double far_factor_;
  double best_score_;
  std::vector<Loan> best_;
};

}  // namespace

std::vector<Loan> lend_by_cost(const Workload& work) {
  if (work.total == 0) return {};
  Search search(work);
  search.consider(lend_least_loaded(work));
  ThresholdGreedy greedy(work);
  const double range = greedy.slowest_seconds() - greedy.mean_seconds();
  for (const GreedyRules& rules : ThresholdGreedy::all_rules) {
    double low = 0;
    double high = 1;
    for (int step = 0; step < bisection_steps; ++step) {
      const double middle = (low + high) / 2;
      (greedy.run(greedy.mean_seconds() + middle * range, rules) ? high : low) = middle;
      search.consider(greedy.loans());
    }
    for (int point = 0; point < grid_points; ++point) {
      greedy.run(greedy.mean_seconds() + range * point / grid_points, rules);
      search.consider(greedy.loans());
    }
  }
  return search.take_best();
}

}  // namespace pccl::moe
