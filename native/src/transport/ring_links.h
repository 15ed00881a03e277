// Who is linked with whom: in a ring of N, rank i with i ± 2^k for k = 0 … rounds(N)-1. That gives the ring its
// neighbours and the dissemination its partners.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

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
  for (std::uint32_t k = 0; k < dissemination_rounds(group_size); ++k) {
    const std::uint32_t distance = (1u << k) % group_size;
    ranks.push_back((rank + distance) % group_size);
    ranks.push_back((rank + group_size - distance) % group_size);
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  std::erase(ranks, rank);
  return ranks;
}

}  // namespace pccl
