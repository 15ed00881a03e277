#include "moe/eplb.h"

#include <algorithm>
#include <limits>

namespace pccl::moe {

namespace {

// How many replicas each expert gets: one, and one more as often as its replicas are the most loaded ones.
std::vector<std::uint32_t> replicate(const PlanRequest& request) {
  std::vector<std::uint32_t> replicas(request.experts, 1);
  for (std::uint32_t i = 0; i < request.redundant_experts; ++i) {
    Expert hottest = 0;
    for (Expert expert = 1; expert < request.experts; ++expert) {
      if (request.statistics[expert] / replicas[expert] > request.statistics[hottest] / replicas[hottest]) {
        hottest = expert;
      }
    }
    ++replicas[hottest];
  }
  return replicas;
}

// The rank of each replica, grouped by expert: heaviest replica first, each to the least loaded rank with a free slot.
std::vector<std::vector<Rank>> pack(const PlanRequest& request, const std::vector<std::uint32_t>& replicas) {
  std::vector<Expert> order;
  for (Expert expert = 0; expert < request.experts; ++expert) order.insert(order.end(), replicas[expert], expert);
  const auto weight = [&](Expert expert) { return request.statistics[expert] / replicas[expert]; };
  std::stable_sort(order.begin(), order.end(), [&](Expert a, Expert b) { return weight(a) > weight(b); });

  const std::size_t slots = order.size() / request.ranks;
  std::vector<double> loads(request.ranks);
  std::vector<std::size_t> taken(request.ranks);
  std::vector<std::vector<Rank>> ranks(request.experts);
  for (const Expert expert : order) {
    Rank best = std::numeric_limits<Rank>::max();
    for (Rank rank = 0; rank < request.ranks; ++rank) {
      if (taken[rank] == slots) continue;
      if (best == std::numeric_limits<Rank>::max() || loads[rank] < loads[best]) best = rank;
    }
    loads[best] += weight(expert);
    ++taken[best];
    ranks[expert].push_back(best);
  }
  return ranks;
}

}  // namespace

std::vector<Loan> lend_by_statistics(const Workload& work) {
  const PlanRequest& request = work.request;
  const std::vector<std::vector<Rank>> ranks = pack(request, replicate(request));
  std::vector<Loan> loans;
  for (Expert expert = 0; expert < request.experts; ++expert) {
    const auto replicas = static_cast<Copies>(ranks[expert].size());
    const Copies copies = work.expert_copies[expert];
    const std::size_t first = loans.size();
    for (Copies i = 0; i < replicas; ++i) {
      const Rank rank = ranks[expert][static_cast<std::size_t>(i)];
      if (rank == request.owners[expert]) continue;
      const Copies share = copies / replicas + (i < copies % replicas ? 1 : 0);
      // Two replicas on one rank are one with two shares.
      const auto same = std::find_if(loans.begin() + static_cast<std::ptrdiff_t>(first), loans.end(),
                                     [&](const Loan& loan) { return loan.target == rank; });
      if (same == loans.end()) {
        loans.push_back({expert, rank, share});
      } else {
        same->copies += share;
      }
    }
  }
  return loans;
}

}  // namespace pccl::moe
