// How fast bytes come through, from their count at several times, and whether that has settled. A connection that has
// just begun doubles its rate with every round trip, so two windows of several round trips each, one after the other,
// differ widely until it has found what the path carries.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace pccl {

class RateMeter {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // `bytes`: all that have come through by then. Times ascend. The rate has settled when the last two windows of this
  // length agree within a twentieth for the first time, and aren't what losses have left of a higher rate.
  void note(Time now, std::uint64_t bytes, Duration window) {
    samples_.push_back({now, bytes});
    if (settled_ || samples_.front().time > now - 2 * window) return;
    const std::uint64_t middle = at_or_before(now - window).bytes;
    const auto before = static_cast<double>(middle - at_or_before(now - 2 * window).bytes);
    const auto after = static_cast<double>(bytes - middle);
    most_ = std::max(most_, after);
    const bool alike = after > 0.95 * before && before > 0.95 * after;
    if (before > 0 && alike && after > 0.85 * most_) settled_ = since(now - 2 * window);
  }

  bool settled() const { return settled_.has_value(); }

  // What it has settled at. If it hasn't, the mean of the later three fifths, without most of a connection's beginning:
  // what arrives behind a lost packet is counted at once when that one has come, so that short times tell little.
  double bytes_per_second() const {
    if (settled_ || samples_.size() < 2) return settled_.value_or(0);
    const Time last = samples_.back().time;
    return since(last - (last - samples_.front().time) * 3 / 5);
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
  double since(Time time) const {
    const Sample& first = at_or_before(time);
    const std::chrono::duration<double> passed = samples_.back().time - first.time;
    return passed.count() > 0 ? static_cast<double>(samples_.back().bytes - first.bytes) / passed.count() : 0;
  }

  std::vector<Sample> samples_;
  std::optional<double> settled_;
  double most_ = 0;  // bytes in one window
};

}  // namespace pccl
