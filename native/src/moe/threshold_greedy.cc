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
    states_[rank] = {native_seconds_[rank], 0, 0, work_.request.imports_max[rank]};
  }
  bool is_reached = true;
  for (const Rank donor : donors_) {
    while (states_[donor].total() > threshold * (1 + rounding) && is_reached) is_reached = lend_once(donor, threshold, rules);
    if (!is_reached) break;
  }
  return is_reached;
}

bool ThresholdGreedy::lend_once(Rank owner, double threshold, const GreedyRules& rules) {
  const Copies chunk_min = work_.request.chunk_copies_min;
  const State& donor = states_[owner];
  Copies largest = 0;
  for (const Expert expert : work_.owned_by(owner)) largest = std::max(largest, native_[expert]);

  // The helper that can take all that the donor has too much, and the one with the most room.
  Rank last = nobody;
  Copies last_room = 0;
  Copies last_copies = 0;
  Rank roomiest = nobody;
  Copies most_room = 0;
  for (Rank helper = 0; helper < work_.request.ranks; ++helper) {
    const State& state = states_[helper];
    if (helper == owner || state.slots == 0) continue;
    const double transfer = transfer_seconds(owner, helper);
    const double free_seconds =
        threshold - state.seconds - expert_seconds_[helper] - std::max(state.received + transfer, state.sent);
    const Copies room = to_copies(std::floor(free_seconds / copy_seconds_[helper]));
    if (room < chunk_min) continue;
    if (room > most_room) {
      roomiest = helper;
      most_room = room;
    }
    const double excess = donor.seconds + std::max(donor.received, donor.sent + transfer) - threshold;
    const Copies copies = std::max(chunk_min, to_copies(std::ceil(excess / copy_seconds_[owner])));
    if (copies > room || copies > largest) continue;
    if (last == nobody || (rules.tightest_helper_last ? room < last_room : room > last_room)) {
      last = helper;
      last_room = room;
      last_copies = copies;
    }
  }

  Move move;
  if (last != nobody) {
    move = {smallest_with(owner, last_copies), last, last_copies};
  } else {
    if (roomiest == nobody) return false;
    const Copies wanted = rules.largest_expert_first ? largest : std::min(largest, most_room);
    move = {smallest_with(owner, wanted), roomiest, std::min(largest, most_room)};
    // Lending this much must gain more than sending the weights takes.
    if (move.copies < chunk_min ||
        static_cast<double>(move.copies) * copy_seconds_[owner] <= transfer_seconds(owner, roomiest)) {
      return false;
    }
  }

  const bool is_lent = std::any_of(loans_.begin(), loans_.end(), [&](const Loan& loan) {
    return loan.expert == move.expert && loan.target == move.helper;
  });
  if (is_lent) return false;
  const double transfer = transfer_seconds(owner, move.helper);
  const auto copies = static_cast<double>(move.copies);
  loans_.push_back({move.expert, move.helper, move.copies});
  native_[move.expert] -= move.copies;
  states_[owner].seconds -= copies * copy_seconds_[owner];
  if (native_[move.expert] == 0) states_[owner].seconds -= expert_seconds_[owner];
  states_[owner].sent += transfer;
  states_[move.helper].seconds += copies * copy_seconds_[move.helper] + expert_seconds_[move.helper];
  states_[move.helper].received += transfer;
  --states_[move.helper].slots;
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

double ThresholdGreedy::transfer_seconds(Rank owner, Rank helper) const {
  const CostModel& cost = work_.request.cost;
  return work_.same_node(owner, helper) ? cost.transfer_seconds : cost.far_transfer_seconds;
}

}  // namespace pccl::moe
