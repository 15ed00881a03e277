#include "transport/lane_tuner.h"

#include <algorithm>
#include <utility>

namespace pccl {

using namespace std::chrono_literals;

void LaneTuner::begin(LaneCount::Duration round_trip, bool same_machine) {
  const LaneCount::Bounds bounds = LaneCount::bounds_for(round_trip, same_machine);
  count_.emplace(bounds);
  if (bounds.max > 1) period_ = std::clamp<LaneCount::Duration>(round_trip, 20ms, 200ms);
}

void LaneTuner::sent() {
  sent_ = true;
  if (ticking_ || period_ == LaneCount::Duration{}) return;
  ticking_ = true;
  // What went before is nobody's; the first period has begun in the midst of things.
  owner_.take_carried();
  starved_ = true;
  last_tick_ = EventLoop::Clock::now();
  timer_ = EventLoop::Timer(loop_, period_, [this] { tick(); });
}

void LaneTuner::tick() {
  const auto now = EventLoop::Clock::now();
  const auto time = now - std::exchange(last_tick_, now);
  const Carried carried = owner_.take_carried();
  const auto before = std::pair(used(), wanted());
  if (!std::exchange(starved_, false)) count_->add(time, carried.bytes, carried.up >= used());
  if (before != std::pair(used(), wanted())) owner_.number_changed();
  // Bytes that are still on their way keep it going, so that what is next begins as this one ends.
  ticking_ = std::exchange(sent_, false) || carried.bytes > 0;
  if (ticking_) timer_ = EventLoop::Timer(loop_, period_, [this] { tick(); });
}

}  // namespace pccl
