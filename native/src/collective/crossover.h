// Up to which size which algorithm is used; docs/decisions/014 has the measurements. Every member must use the same.
#pragma once

#include <cstdint>

#include "base/limits.h"

namespace pccl {

// Blocks up to this length go with the `ready`.
inline constexpr std::uint64_t block_in_ready_bytes_max = 16 * 1024;
static_assert(block_in_ready_bytes_max + 16 <= limits::ready_payload_bytes_max);

// Contributions to a reduction likewise, in a group of that many: each sends its own to all others, so the more they
// are the sooner the ring, which sends less, is faster.
constexpr std::uint64_t one_shot_bytes_max(std::uint32_t ranks) {
  if (ranks <= 2) return 32 * 1024;
  return ranks <= 4 ? 16 * 1024 : 4 * 1024;
}
static_assert(one_shot_bytes_max(2) <= limits::ready_payload_bytes_max);

// Members of one host that reduce in each other's memory: two are faster through a lane, which both of them keep in
// their caches; docs/decisions/017.
inline constexpr std::uint32_t direct_all_reduce_ranks_min = 3;

}  // namespace pccl
