// Sums over a request that every planner needs, made once.
#pragma once

#include <span>
#include <vector>

#include "moe/plan.h"

namespace pccl::moe {

struct Workload {
  explicit Workload(const PlanRequest& plan_request);

  Copies count(Rank source, Expert expert) const {
    return request.counts[std::size_t{source} * request.experts + expert];
  }
  bool same_node(Rank a, Rank b) const { return request.nodes[a] == request.nodes[b]; }
  // Experts of one owner, most copies first, ties by lower number.
  std::span<const Expert> owned_by(Rank rank) const {
    return std::span(owned).subspan(first_owned[rank], first_owned[rank + 1] - first_owned[rank]);
  }

  const PlanRequest& request;
  std::vector<Copies> expert_copies;       // [experts]
  std::vector<Copies> sent;                // [ranks * ranks]: from a source to an owner
  std::vector<Copies> loads;               // [ranks], each expert at its owner
  Copies total = 0;
  double speed_sum = 0;
  std::vector<Expert> order;               // all experts, most copies first, ties by lower number
  std::vector<Expert> owned;               // grouped by owner
  std::vector<std::uint32_t> first_owned;  // [ranks + 1]
  std::vector<Rank> by_node;               // ranks grouped by node, ascending in each
};

}  // namespace pccl::moe
