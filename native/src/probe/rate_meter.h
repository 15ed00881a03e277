// How fast bytes come through, from their count at several times, and whether that has settled. A connection that has
// just begun doubles its rate with every round trip, so two windows of several round trips each, one after the other,
// differ widely until it has found what the path carries.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace pccl {

class RateMeter {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // `bytes`: all that have come through by then. Times ascend.
  void note(Time now, std::uint64_t bytes) { samples_.push_back({now, bytes}); }

  // Whether the last two windows of this length agree within a twentieth.
  bool steady(Duration window) const {
    if (samples_.empty()) return false;
    const Time now = samples_.back().time;
    if (samples_.front().time > now - 2 * window) return false;
    const std::uint64_t middle = bytes_at(now - window);
    const auto before = static_cast<double>(middle - bytes_at(now - 2 * window));
    const auto after = static_cast<double>(samples_.back().bytes - middle);
    return before > 0 && after > 0.95 * before && before > 0.95 * after;
  }

  // Over the last two windows, or over all the time there is; 0 when nothing came.
  double bytes_per_second(Duration window) const {
    if (samples_.size() < 2) return 0;
    const Sample& first = at_or_before(samples_.back().time - 2 * window);
    const std::chrono::duration<double> time = samples_.back().time - first.time;
    return time.count() > 0 ? static_cast<double>(samples_.back().bytes - first.bytes) / time.count() : 0;
  }

 private:
  struct Sample {
    Time time;
    std::uint64_t bytes;
  };

  // The last sample that isn't later than that; the first one if all are.
  const Sample& at_or_before(Time time) const {
    std::size_t index = samples_.size() - 1;
    while (index > 0 && samples_[index].time > time) --index;
    return samples_[index];
  }
  std::uint64_t bytes_at(Time time) const { return at_or_before(time).bytes; }

  std::vector<Sample> samples_;
};

}  // namespace pccl
