#include "moe/workload.h"

#include <algorithm>
#include <numeric>

namespace pccl::moe {

Workload::Workload(const PlanRequest& plan_request)
    : request(plan_request),
      expert_copies(request.experts),
      sent(std::size_t{request.ranks} * request.ranks),
      loads(request.ranks),
      order(request.experts),
      owned(request.experts),
      first_owned(request.ranks + 1),
      by_node(request.ranks) {
  for (Rank rank = 0; rank < request.ranks; ++rank) {
    const Copies* row = request.counts.data() + std::size_t{rank} * request.experts;
    Copies* sent_row = sent.data() + std::size_t{rank} * request.ranks;
    for (Expert expert = 0; expert < request.experts; ++expert) expert_copies[expert] += row[expert];
    for (Expert expert = 0; expert < request.experts; ++expert) sent_row[request.owners[expert]] += row[expert];
  }
  for (Expert expert = 0; expert < request.experts; ++expert) {
    loads[request.owners[expert]] += expert_copies[expert];
    total += expert_copies[expert];
    ++first_owned[request.owners[expert] + 1];
  }
  speed_sum = std::accumulate(request.speeds.begin(), request.speeds.end(), 0.0);

  std::iota(order.begin(), order.end(), Expert{0});
  std::sort(order.begin(), order.end(), [&](Expert a, Expert b) {
    return expert_copies[a] != expert_copies[b] ? expert_copies[a] > expert_copies[b] : a < b;
  });
  std::partial_sum(first_owned.begin(), first_owned.end(), first_owned.begin());
  std::vector<std::uint32_t> next(first_owned.begin(), first_owned.end() - 1);
  for (const Expert expert : order) owned[next[request.owners[expert]]++] = expert;

  std::iota(by_node.begin(), by_node.end(), Rank{0});
  std::stable_sort(by_node.begin(), by_node.end(),
                   [&](Rank a, Rank b) { return request.nodes[a] < request.nodes[b]; });
}

}  // namespace pccl::moe
