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
    exclusive,  // a collective's output
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
    if (const auto id = overlapping(exclusive_, range)) return id;
    return range.use == Use::shared ? std::nullopt : overlapping(shared_, range);
  }

  void take(OpId id, const Range& range) { (range.use == Use::shared ? shared_ : exclusive_).emplace(id, range); }
  void give_back(OpId id) {
    shared_.erase(id);
    exclusive_.erase(id);
  }

 private:
  // An export can have as many as there are tensors, so that those of the other kind are looked at alone.
  using Held = std::multimap<OpId, Range>;

  static std::optional<OpId> overlapping(const Held& held, const Range& range) {
    for (const auto& [id, other] : held) {
      if (other.begin < range.end && range.begin < other.end) return id;
    }
    return std::nullopt;
  }

  Held shared_;
  Held exclusive_;
};

}  // namespace pccl
