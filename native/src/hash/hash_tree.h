// The hash of a tensor, as a tree of two levels: its bytes are cut into leaves of 64 KiB, the last of which may be
// shorter; a leaf's hash is XXH3-128 of its bytes, the root's is XXH3-128 of the leaves' hashes, 16 bytes each, one
// after the other. A tensor without bytes has no leaves, and the root is the hash of no bytes. docs/protocol.md has
// all that it takes to compute the same elsewhere.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/limits.h"
#include "hash/xxh3.h"

namespace pccl {

inline std::uint64_t leaf_count(std::uint64_t bytes) {
  return bytes / limits::state_leaf_bytes + (bytes % limits::state_leaf_bytes != 0 ? 1 : 0);
}

// Of `count` leaves from `first` on.
inline std::uint64_t leaves_bytes(std::uint64_t bytes, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t begin = first * limits::state_leaf_bytes;
  return std::min(bytes, begin + count * limits::state_leaf_bytes) - begin;
}

inline Hash128 root_of(std::span<const Hash128> leaves) { return xxh3_128(leaves.data(), leaves.size_bytes()); }

// The root of these bytes, on this thread. Nothing when `stop` became true before the end.
inline std::optional<Hash128> tree_root(std::span<const std::byte> bytes, const std::atomic<bool>& stop) {
  std::vector<Hash128> leaves(leaf_count(bytes.size()));
  for (std::uint64_t i = 0; i < leaves.size(); ++i) {
    if (stop.load(std::memory_order_relaxed)) return std::nullopt;
    leaves[i] = xxh3_128(bytes.data() + i * limits::state_leaf_bytes, leaves_bytes(bytes.size(), i, 1));
  }
  return root_of(leaves);
}

}  // namespace pccl
