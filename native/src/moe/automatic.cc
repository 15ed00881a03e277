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
// Fewer where a single run takes longer.
constexpr int grid_points_times_ranks = 1024;
// Candidates whose time is predicted in full; the others by the greedy's own account, which averages the traffic.
constexpr std::size_t finalists_max = 8;

// Each loan must lower the step's time by this part, less where it costs little: link and memory are shared with
// whatever the model doesn't know. Chosen on the golden cases (docs/decisions/013-planner.md).
constexpr double loan_gain_max = 0.065;
constexpr double loan_gain_per_transfer = 3.2;
// In a larger world it takes more loans to gain as much: the part falls with the square of its size.
constexpr double loan_gain_ranks = 16;

struct Candidate {
  double score = 0;
  std::vector<Loan> loans;
};

// A step's time, raised for each loan: what candidates are compared by.
class Score {
 public:
  Score(const Workload& work, double mean_seconds) : work_(work) {
    const double size = std::min(1.0, loan_gain_ranks / work.request.ranks);
    const auto factor = [&](double transfer_seconds) {
      return 1 + std::min(loan_gain_max, loan_gain_per_transfer * transfer_seconds / mean_seconds) * size * size;
    };
    near_factor_ = factor(work.request.cost.transfer_seconds);
    far_factor_ = factor(work.request.cost.far_transfer_seconds);
  }

  double operator()(double seconds, const std::vector<Loan>& loans) const {
    for (const Loan& loan : loans) {
      seconds *= work_.same_node(work_.request.owners[loan.expert], loan.target) ? near_factor_ : far_factor_;
    }
    return seconds;
  }

 private:
  const Workload& work_;
  double near_factor_;
  double far_factor_;
};

// The best candidates by score, best first; of equal ones the earlier.
class Finalists {
 public:
  void offer(double score, const std::vector<Loan>& loans) {
    if (candidates_.size() == finalists_max && score >= candidates_.back().score) return;
    const auto place = std::find_if(candidates_.begin(), candidates_.end(),
                                    [&](const Candidate& candidate) { return score < candidate.score; });
    // The same loans are found at many thresholds.
    if (place != candidates_.begin() && std::prev(place)->score == score) return;
    candidates_.insert(place, {score, loans});
    if (candidates_.size() > finalists_max) candidates_.pop_back();
  }
  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  std::vector<Candidate> candidates_;
};

Finalists search(const Workload& work, const Score& score, ThresholdGreedy& greedy) {
  Finalists finalists;
  const double range = greedy.slowest_seconds() - greedy.mean_seconds();
  const auto try_threshold = [&](double part, const GreedyRules& rules) {
    const bool is_reached = greedy.run(greedy.mean_seconds() + part * range, rules);
    finalists.offer(score(greedy.seconds(), greedy.loans()), greedy.loans());
    return is_reached;
  };
  const int points = std::min(grid_points, grid_points_times_ranks / static_cast<int>(work.request.ranks) + 1);
  for (const GreedyRules& rules : ThresholdGreedy::all_rules) {
    double low = 0;
    double high = 1;
    for (int step = 0; step < bisection_steps; ++step) {
      const double middle = (low + high) / 2;
      (try_threshold(middle, rules) ? high : low) = middle;
    }
    for (int point = 0; point < points; ++point) try_threshold(static_cast<double>(point) / points, rules);
  }
  return finalists;
}

}  // namespace

std::vector<Loan> lend_by_cost(const Workload& work) {
  if (work.total == 0) return {};
  ThresholdGreedy greedy(work);
  const Score score(work, greedy.mean_seconds());
  const Finalists finalists = search(work, score, greedy);

  CostEvaluator evaluator(work, work.request.cost);
  const double native_seconds = evaluator.step_seconds({});
  Candidate best{native_seconds, {}};
  const auto consider = [&](const std::vector<Loan>& loans) {
    const double seconds = evaluator.step_seconds(loans);
    if (seconds > native_seconds || score(seconds, loans) >= best.score) return;
    best = {score(seconds, loans), loans};
  };
  for (const Candidate& candidate : finalists.candidates()) consider(candidate.loans);
  consider(lend_least_loaded(work));
  std::vector<Loan> local = with_local_choices(work, best.loans);
  return evaluator.step_seconds(local) <= evaluator.step_seconds(best.loans) ? local : best.loans;
}

}  // namespace pccl::moe
