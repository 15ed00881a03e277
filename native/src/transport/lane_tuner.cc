#include "transport/lane_tuner.h"

#include <algorithm>
#include <utility>

namespace pccl {

namespace {

using namespace std::chrono_literals;

// In bandwidth-delay products: what a path that has become faster could carry more, which a queue holds meanwhile.
constexpr double in_flight = 1.25;
// The system says that a full socket can be written to when a third of it is free, and the path would run dry. So it is
// filled up that many times in a round trip.
constexpr int top_ups_per_round_trip = 16;

}  // namespace

void LaneTuner::begin(LaneCount::Duration round_trip, bool same_machine) {
  const LaneCount::Bounds bounds = LaneCount::bounds_for(round_trip, same_machine);
  count_.emplace(bounds);
  rate_.emplace(round_trip);
  if (bounds.max > 1) period_ = std::clamp<LaneCount::Duration>(round_trip, 20ms, 200ms);
  top_up_period_ = std::clamp<LaneCount::Duration>(round_trip / top_ups_per_round_trip, 1ms, 10ms);
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
  if (!std::exchange(starved_, false)) {
    count_->add(time, carried.bytes, carried.up >= used());
    rate_->add(time, carried.bytes);
    const std::uint64_t wanted = rate_->in_flight_bytes(in_flight);
    if (std::exchange(in_flight_bytes_, wanted) != wanted) owner_.in_flight_changed();
  }
  if (before != std::pair(used(), wanted())) owner_.number_changed();
  // Bytes that are still on their way keep it going, so that what is next begins as this one ends.
  ticking_ = std::exchange(sent_, false) || carried.bytes > 0;
  if (!ticking_) return top_up_timer_.reset();
  timer_ = EventLoop::Timer(loop_, period_, [this] { tick(); });
  if (in_flight_bytes_ > 0) top_up();
}

void LaneTuner::top_up() {
  owner_.top_up();
  top_up_timer_ = EventLoop::Timer(loop_, top_up_period_, [this] { top_up(); });
}

}  // namespace pccl
