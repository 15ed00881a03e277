// Which memory the calls in flight use, so that no two of them use the same bytes in ways that disturb each other.
// Guarded by its owner.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "pccl/engine.h"

namespace pccl {

class Leases {
 public:
  enum class Use : std::uint8_t {
    shared,     // only read, also by others: an export, a collective's input
    exclusive,  // a collective's output, or the target of a fetch
  };
  struct Range {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    Use use = Use::exclusive;
  };

  static Range range(const void* at, std::uint64_t bytes, Use use) {
    const auto begin = reinterpret_cast<std::uintptr_t>(at);
    return {begin, begin + bytes, use};
  }

  // The call whose memory overlaps `range` in a way that one of the two doesn't allow.
  std::optional<OpId> holder(const Range& range) const {
    for (const auto& [id, held] : held_) {
      const bool disturbs = held.use == Use::exclusive || range.use == Use::exclusive;
      if (disturbs && held.begin < range.end && range.begin < held.end) return id;
    }
    return std::nullopt;
  }

  void take(OpId id, const Range& range) { held_.emplace(id, range); }
  void give_back(OpId id) { held_.erase(id); }

 private:
  std::multimap<OpId, Range> held_;
};

}  // namespace pccl
