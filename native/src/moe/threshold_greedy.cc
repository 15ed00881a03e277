#include "moe/threshold_greedy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pccl::moe {

namespace {

constexpr Rank nobody = std::numeric_limits<Rank>::max();

// What sums in double precision may be off by.
constexpr double rounding = 1e-12;

Copies to_copies(double copies) {
  constexpr double copies_max = 1e15;  // far above any load, and safe to add to
  return static_cast<Copies>(std::clamp(copies, -copies_max, copies_max));
}

}  // namespace

ThresholdGreedy::ThresholdGreedy(const Workload& work)
    : work_(work),
      copy_seconds_(work.request.ranks),
      expert_seconds_(work.request.ranks),
      native_seconds_(work.request.ranks),
      donors_(work.request.ranks),
      states_(work.request.ranks),
      native_(work.request.experts) {
  const PlanRequest& request = work.request;
  double copies_per_second = 0;
  for (Rank rank = 0; rank < request.ranks; ++rank) {
    // A copy comes from each rank alike; what it takes to get here and back is added to its computing.
    double cross_seconds = 0;
    for (Rank source = 0; source < request.ranks; ++source) {
      if (source == rank) continue;
      cross_seconds +=
          work.same_node(source, rank) ? request.cost.cross_copy_seconds : request.cost.far_cross_copy_seconds;
    }
    copy_seconds_[rank] = request.cost.copy_seconds / request.speeds[rank] + cross_seconds / request.ranks;
    expert_seconds_[rank] = request.cost.expert_seconds / request.speeds[rank];
    native_seconds_[rank] = static_cast<double>(work.loads[rank]) * copy_seconds_[rank];
    copies_per_second += 1 / copy_seconds_[rank];
    for (const Expert expert : work.owned_by(rank)) {
      if (work.expert_copies[expert] > 0) native_seconds_[rank] += expert_seconds_[rank];
    }
  }
  mean_seconds_ = static_cast<double>(work.total) / copies_per_second;
  std::iota(donors_.begin(), donors_.end(), Rank{0});
  std::stable_sort(donors_.begin(), donors_.end(),
                   [&](Rank a, Rank b) { return native_seconds_[a] > native_seconds_[b]; });
}

bool ThresholdGreedy::run(double threshold, const GreedyRules& rules) {
  loans_.clear();
  native_ = work_.expert_copies;
  for (Rank rank = 0; rank < work_.request.ranks; ++rank) {
    states_[rank] = {native_seconds_[rank], 0, 0, work_.request.imports_max[rank], 0, 0};
    update_room(rank, threshold);
  }
  for (const Rank donor : donors_) {
    const std::size_t first_loan = loans_.size();
    while (states_[donor].total() > threshold * (1 + rounding)) {
      if (!lend_once(donor, threshold, rules, first_loan)) return false;
    }
  }
  return true;
}

double ThresholdGreedy::seconds() const {
  double slowest = 0;
  for (const State& state : states_) slowest = std::max(slowest, state.total());
  return slowest;
}

void ThresholdGreedy::update_room(Rank rank, double threshold) {
  State& state = states_[rank];
  const double free_seconds = threshold - state.seconds - expert_seconds_[rank];
  const auto room = [&](double transfer) {
    const double seconds = free_seconds - std::max(state.received + transfer, state.sent);
    return to_copies(std::floor(seconds / copy_seconds_[rank]));
  };
  state.near_room = state.slots == 0 ? 0 : room(work_.request.cost.transfer_seconds);
  state.far_room = state.slots == 0 ? 0 : room(work_.request.cost.far_transfer_seconds);
}

bool ThresholdGreedy::lend_once(Rank owner, double threshold, const GreedyRules& rules, std::size_t first_loan) {
  const CostModel& cost = work_.request.cost;
  const Copies chunk_min = work_.request.chunk_copies_min;
  State& donor = states_[owner];
  // What the donor has too much of once it has sent one more expert's weights.
  const auto excess = [&](double transfer) {
    const double seconds = donor.seconds + std::max(donor.received, donor.sent + transfer) - threshold;
    return std::max(chunk_min, to_copies(std::ceil(seconds / copy_seconds_[owner])));
  };
  const Copies near_excess = excess(cost.transfer_seconds);
  const Copies far_excess = excess(cost.far_transfer_seconds);
  Copies largest = 0;
  for (const Expert expert : work_.owned_by(owner)) largest = std::max(largest, native_[expert]);

  // The helper that can take all of the excess, and the one with the most room.
  Rank last = nobody;
  Copies last_room = 0;
  Rank roomiest = nobody;
  Copies most_room = chunk_min - 1;
  for (Rank helper = 0; helper < work_.request.ranks; ++helper) {
    const bool is_near = work_.same_node(owner, helper);
    const Copies room = is_near ? states_[helper].near_room : states_[helper].far_room;
    if (room < chunk_min || helper == owner) continue;
    if (room > most_room) {
      roomiest = helper;
      most_room = room;
    }
    const Copies copies = is_near ? near_excess : far_excess;
    if (copies > room || copies > largest) continue;
    if (last == nobody || (rules.tightest_helper_last ? room < last_room : room > last_room)) {
      last = helper;
      last_room = room;
    }
  }
  if (roomiest == nobody || largest < chunk_min) return false;

  const Rank target = last == nobody ? roomiest : last;
  const bool is_near = work_.same_node(owner, target);
  const double transfer = is_near ? cost.transfer_seconds : cost.far_transfer_seconds;
  const Copies lent = last == nobody ? std::min(largest, most_room) : (is_near ? near_excess : far_excess);
  const double gained = static_cast<double>(lent) * copy_seconds_[owner];
  // What doesn't end the donor's excess must at least gain more than sending the weights takes.
  if (last == nobody && gained <= transfer) return false;
  const Expert expert = smallest_with(owner, last == nobody && rules.largest_expert_first ? largest : lent);
  const bool is_lent =
      std::any_of(loans_.begin() + static_cast<std::ptrdiff_t>(first_loan), loans_.end(),
                  [&](const Loan& loan) { return loan.expert == expert && loan.target == target; });
  if (is_lent) return false;

  loans_.push_back({expert, target, lent});
  native_[expert] -= lent;
  donor.seconds -= gained;
  if (native_[expert] == 0) donor.seconds -= expert_seconds_[owner];
  donor.sent += transfer;
  State& helper = states_[target];
  helper.seconds += static_cast<double>(lent) * copy_seconds_[target] + expert_seconds_[target];
  helper.received += transfer;
  --helper.slots;
  update_room(owner, threshold);
  update_room(target, threshold);
  return true;
}

Expert ThresholdGreedy::smallest_with(Rank owner, Copies copies) const {
  const std::span<const Expert> owned = work_.owned_by(owner);
  Expert best = owned.front();
  for (const Expert expert : owned) {
    if (native_[expert] < copies) continue;
    if (native_[best] < copies || native_[expert] < native_[best]) best = expert;
  }
  return best;
}

}  // namespace pccl::moe
