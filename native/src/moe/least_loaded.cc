#include "moe/least_loaded.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pccl::moe {

namespace {

constexpr Rank nobody = std::numeric_limits<Rank>::max();

// Copies that one rank computes at most.
Copies reference_capacity(const Workload& work) {
  const Copies mean = work.total / work.request.ranks;
  if (mean == 0) return std::max<Copies>(work.total, 1);
  // A product in double precision, truncated: 0.57 * 100 gives 56.
  return std::max<Copies>(static_cast<Copies>(work.request.capacity_factor * static_cast<double>(mean)), 1);
}

}  // namespace

std::vector<Loan> lend_as_reference(const Workload& work) {
  const PlanRequest& request = work.request;
  const Copies capacity = reference_capacity(work);
  // Effective loads: what a rank was given, and what its own experts may still bring.
  std::vector<Copies> effective = work.loads;
  std::vector<bool> is_visited(request.ranks);
  std::vector<Loan> loans;

  const auto least_loaded = [&](Rank owner, bool skip_visited) {
    Rank best = nobody;
    for (Rank rank = 0; rank < request.ranks; ++rank) {
      if (rank == owner || (skip_visited && is_visited[rank])) continue;
      if (best == nobody || effective[rank] < effective[best]) best = rank;
    }
    return best;
  };

  for (const Expert expert : work.order) {
    const Copies copies = work.expert_copies[expert];
    if (copies == 0) break;
    const Rank owner = request.owners[expert];
    const Copies native = std::min(capacity - (effective[owner] - copies), copies);
    if (native == copies || request.ranks == 1) continue;
    // The owner with room left looks for the least loaded rank anew after each loan. A full owner goes once through
    // the ranks as they were ordered at the beginning.
    const bool goes_once = native <= 0;
    Copies rest = goes_once ? copies : copies - native;
    effective[owner] -= rest;
    std::fill(is_visited.begin(), is_visited.end(), false);
    Rank first = least_loaded(owner, false);
    while (rest > 0) {
      // If the least loaded rank can't take a chunk, no other can.
      const Rank helper = least_loaded(owner, goes_once);
      if (!goes_once) first = helper;
      const Copies room = helper == nobody ? 0 : capacity - effective[helper];
      Copies chunk = std::min(rest, room);
      Rank target = helper;
      if (chunk <= 0 || (chunk < request.chunk_copies_min && rest > chunk)) {
        chunk = rest;
        target = first;
      }
      loans.push_back({expert, target, chunk});
      effective[target] += chunk;
      is_visited[target] = true;
      rest -= chunk;
    }
  }
  return loans;
}

std::vector<Loan> lend_least_loaded(const Workload& work) {
  const PlanRequest& request = work.request;
  const Copies chunk_min = request.chunk_copies_min;
  std::vector<Copies> room(request.ranks);
  std::vector<std::uint32_t> slots = request.imports_max;
  for (Rank rank = 0; rank < request.ranks; ++rank) {
    const double share = static_cast<double>(work.total) * request.speeds[rank] / work.speed_sum;
    const auto capacity = static_cast<Copies>(std::ceil(request.capacity_factor * share));
    room[rank] = capacity - work.loads[rank];
  }
  std::vector<bool> has_expert(request.ranks);
  std::vector<Copies> effective = work.loads;
  std::vector<Loan> loans;

  for (const Expert expert : work.order) {
    const Rank owner = request.owners[expert];
    // Copies of this expert that its owner has too many of, and those that it could give at all.
    Copies native = work.expert_copies[expert];
    if (native < chunk_min) break;
    if (room[owner] >= 0) continue;
    std::fill(has_expert.begin(), has_expert.end(), false);
    has_expert[owner] = true;
    while (room[owner] < 0 && native >= chunk_min) {
      Rank helper = nobody;
      for (Rank rank = 0; rank < request.ranks; ++rank) {
        if (has_expert[rank] || slots[rank] == 0) continue;
        if (helper == nobody || room[rank] > room[helper] ||
            (room[rank] == room[helper] && work.same_node(rank, owner) && !work.same_node(helper, owner))) {
          helper = rank;
        }
      }
      if (helper == nobody) break;
      Copies chunk = std::min({-room[owner], native, room[helper]});
      if (chunk < chunk_min) {
        chunk = chunk_min;
        const double helper_time = static_cast<double>(effective[helper] + chunk) / request.speeds[helper];
        if (helper_time >= static_cast<double>(effective[owner]) / request.speeds[owner]) break;
      }
      loans.push_back({expert, helper, chunk});
      has_expert[helper] = true;
      --slots[helper];
      native -= chunk;
      room[owner] += chunk;
      room[helper] -= chunk;
      effective[owner] -= chunk;
      effective[helper] += chunk;
    }
  }
  return loans;
}

double load_imbalance(const Workload& work) {
  if (work.total == 0) return 1;
  double slowest = 0;
  for (Rank rank = 0; rank < work.request.ranks; ++rank) {
    slowest = std::max(slowest, static_cast<double>(work.loads[rank]) / work.request.speeds[rank]);
  }
  return slowest / (static_cast<double>(work.total) / work.speed_sum);
}

double reference_imbalance(const Workload& work) {
  if (work.total == 0) return 1;
  const auto largest = static_cast<float>(*std::max_element(work.loads.begin(), work.loads.end()));
  const float mean = static_cast<float>(work.total) / static_cast<float>(work.request.ranks);
  return largest / mean;
}

}  // namespace pccl::moe
