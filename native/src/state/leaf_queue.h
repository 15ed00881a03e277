// The leaves that a fetch still has to ask for, in the order in which it wants them. Pure bookkeeping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

namespace pccl {

struct LeafRange {
  std::uint32_t tensor = 0;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  bool operator==(const LeafRange&) const = default;
};

class LeafQueue {
 public:
  void add(const LeafRange& range);
  // What was taken and didn't come is wanted next.
  void give_back(const LeafRange& range) { ranges_.push_front(range); }

  const std::deque<LeafRange>& ranges() const { return ranges_; }

  // At most `count_max` leaves of one tensor, side by side, of those that `has` says yes to.
  std::optional<LeafRange> take_of(std::uint64_t count_max,
                                   const std::function<bool(std::uint32_t tensor, std::uint64_t leaf)>& has);

 private:
  std::deque<LeafRange> ranges_;
};

}  // namespace pccl
