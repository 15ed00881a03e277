#include "transport/lane_count.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace pccl {
namespace {

using namespace std::chrono_literals;

constexpr auto local_network_round_trip = 4ms;
constexpr std::uint32_t local_network_max = 4;
// Linux bounds a connection's send buffer by 4 MiB, and thus what it carries by about 3.5 MB per round trip; at the
// start there are as many as carry 1 Gbit/s then, and as many again, as none of them is ever quite up to speed. More
// than are needed do harm: the slower each one is, the longer a chunk takes on its way.
constexpr auto round_trip_per_connection = 12500us;
constexpr std::uint32_t start_max = 8;
// A start of congestion control takes about as many round trips, and so does a cycle of BBR's.
constexpr int settling_round_trips = 10;
constexpr int measuring_round_trips = 12;

// What more connections must bring, and what fewer may cost.
constexpr double worth_more = 1.08;
constexpr double as_good = 0.97;
constexpr auto pause_min = 20s;
constexpr auto pause_max = 600s;
// A link whose throughput still rises by more than that from one measurement to the next gets up to speed by itself.
constexpr double steady = 1.05;
// New connections that aren't up after so many times the settling won't come.
constexpr int patience = 10;

}  // namespace

LaneCount::Bounds LaneCount::bounds_for(Duration round_trip, bool same_machine) {
  if (same_machine) return {};
  const auto settling = std::clamp<Duration>(settling_round_trips * round_trip, 100ms, 2s);
  const auto measuring = std::clamp<Duration>(measuring_round_trips * round_trip, 250ms, 3s);
  if (round_trip < local_network_round_trip) return {1, local_network_max, settling, measuring};
  const auto start = static_cast<std::uint32_t>(round_trip / round_trip_per_connection);
  return {std::clamp(start, 2u, start_max), limits::adaptive_connections_max, settling, measuring};
}

void LaneCount::add(Duration time, std::uint64_t bytes, bool all_up) {
  elapsed_ += time;
  if (!all_up) {
    if (elapsed_ > patience * bounds_.settling && used_ != best_) judge(0);
    return;
  }
  if (settling_) {
    if (elapsed_ < bounds_.settling) return;
    settling_ = false;
    elapsed_ = {};
    return;
  }
  bytes_ += bytes;
  if (elapsed_ < bounds_.measuring) return;
  judge(static_cast<double>(bytes_) / static_cast<double>(elapsed_.count()));
}

void LaneCount::judge(double rate) {
  if (used_ == best_) {
    const bool is_steady = rate <= best_rate_ * steady;
    best_rate_ = rate;
    pause_left_ -= std::min(pause_left_, elapsed_);
    elapsed_ = {};
    bytes_ = 0;
    if (is_steady && pause_left_ == Duration{}) try_next();
    return;
  }
  if (rate > 0 && rate >= best_rate_ * (used_ > best_ ? worth_more : as_good)) {
    best_ = used_;
    best_rate_ = rate;
    pause_ = {};
    use(best_);
    if (next() != best_) return try_next();
  } else {
    use(best_);
  }
  up_ = !up_;
  pause_ = std::clamp<Duration>(2 * pause_, pause_min, pause_max);
  pause_left_ = pause_;
}

std::uint32_t LaneCount::next() const { return up_ ? std::min(2 * best_, bounds_.max) : std::max(best_ / 2, 1u); }

void LaneCount::try_next() {
  if (next() == best_) up_ = !up_;
  if (next() != best_) use(next());
}

void LaneCount::use(std::uint32_t number) {
  used_ = number;
  settling_ = true;
  elapsed_ = {};
  bytes_ = 0;
}

}  // namespace pccl
