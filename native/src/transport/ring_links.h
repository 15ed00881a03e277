// Who is linked with whom. Groups of up to fully_linked_max: everybody with everybody, so that blocks go straight to
// those they are for. Larger ones: rank i with i ± 2^k for k = 0 … rounds(N)-1, which gives the ring its neighbours and
// the dissemination its partners. packages/pccl-core/src/membership/ring.ts says the same; linked_ranks.txt holds both
// to it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "base/limits.h"

namespace pccl {

// ⌈log2 N⌉: rounds of a dissemination.
constexpr std::uint32_t dissemination_rounds(std::uint32_t group_size) {
  std::uint32_t rounds = 0;
  while ((std::uint64_t{1} << rounds) < group_size) ++rounds;
  return rounds;
}

// Ascending, without `rank` itself.
inline std::vector<std::uint32_t> linked_ranks(std::uint32_t rank, std::uint32_t group_size) {
  std::vector<std::uint32_t> ranks;
  if (group_size <= limits::fully_linked_max) {
    ranks.resize(group_size);
    std::iota(ranks.begin(), ranks.end(), 0u);
  } else {
    for (std::uint32_t k = 0; k < dissemination_rounds(group_size); ++k) {
      ranks.push_back((rank + (1u << k)) % group_size);
      ranks.push_back((rank + group_size - (1u << k)) % group_size);
    }
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  std::erase(ranks, rank);
  return ranks;
}

}  // namespace pccl
