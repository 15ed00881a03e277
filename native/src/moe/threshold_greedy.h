// Finds loans that bring every rank's time under a threshold, where there are some within easy reach.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "moe/workload.h"

namespace pccl::moe {

// What the greedy does where it has a choice. No rule is the best one for every input, and each is cheap to try.
struct GreedyRules {
  bool largest_expert_first;  // what fills a helper is cut from the largest expert, else from the smallest that does
  bool tightest_helper_last;  // a donor's last chunk goes to the helper that it leaves least room, else the most
};

class ThresholdGreedy {
 public:
  static constexpr std::array<GreedyRules, 4> all_rules = {
      {{false, false}, {true, false}, {false, true}, {true, true}}};

  explicit ThresholdGreedy(const Workload& work);

  // True if every rank comes to at most `threshold` seconds. loans() is what was found, in either case, valid until
  // the next call. Times are the cost model's, with cross-rank copies at their average.
  bool run(double threshold, const GreedyRules& rules);
  const std::vector<Loan>& loans() const { return loans_; }
  // Of the slowest rank with these loans.
  double seconds() const;

  // Of the slowest rank without loans, and of all ranks with loads that could be cut at will and lent for nothing.
  double slowest_seconds() const { return native_seconds_[donors_.front()]; }
  double mean_seconds() const { return mean_seconds_; }

 private:
  struct State {
    double seconds = 0;
    double sent = 0;      // seconds of weights
    double received = 0;  // seconds of weights
    std::uint32_t slots = 0;
    Copies near_room = 0;  // what the rank can still borrow under the threshold, from an owner of its node
    Copies far_room = 0;   // from one of another node
    double total() const { return seconds + (sent > received ? sent : received); }
  };

  bool lend_once(Rank owner, double threshold, const GreedyRules& rules, std::size_t first_loan);
  void update_room(Rank rank, double threshold);
  // Of the owner's experts with at least `copies` left, the one with the fewest; else the one with the most.
  Expert smallest_with(Rank owner, Copies copies) const;

  const Workload& work_;
  std::vector<double> copy_seconds_;    // [ranks]
  std::vector<double> expert_seconds_;  // [ranks]
  std::vector<double> native_seconds_;  // [ranks]
  std::vector<Rank> donors_;            // slowest first
  double mean_seconds_ = 0;
  std::vector<State> states_;   // [ranks]
  std::vector<Copies> native_;  // [experts]: what is left to the owner
  std::vector<Loan> loans_;
};

}  // namespace pccl::moe
