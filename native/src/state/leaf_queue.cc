#include "state/leaf_queue.h"

#include <algorithm>

namespace pccl {

void LeafQueue::add(const LeafRange& range) {
  if (!ranges_.empty()) {
    LeafRange& last = ranges_.back();
    if (last.tensor == range.tensor && last.first + last.count == range.first) {
      last.count += range.count;
      return;
    }
  }
  ranges_.push_back(range);
}

std::optional<LeafRange> LeafQueue::take_of(
    std::uint64_t count_max, const std::function<bool(std::uint32_t tensor, std::uint64_t leaf)>& has) {
  for (auto range = ranges_.begin(); range != ranges_.end(); ++range) {
    const std::uint64_t end = range->first + range->count;
    std::uint64_t first = range->first;
    while (first < end && !has(range->tensor, first)) ++first;
    if (first == end) continue;
    std::uint64_t last = first + 1;
    while (last < end && last - first < count_max && has(range->tensor, last)) ++last;
    const LeafRange taken{range->tensor, first, last - first};
    const LeafRange before{range->tensor, range->first, first - range->first};
    const LeafRange after{range->tensor, last, end - last};
    auto at = ranges_.erase(range);
    if (after.count > 0) at = ranges_.insert(at, after);
    if (before.count > 0) ranges_.insert(at, before);
    return taken;
  }
  return std::nullopt;
}

}  // namespace pccl
