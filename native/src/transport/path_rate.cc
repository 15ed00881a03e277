#include "transport/path_rate.h"

#include <algorithm>
#include <utility>

namespace pccl {
namespace {

constexpr int stretch_round_trips = 5;

}  // namespace

void PathRate::add(Duration time, std::uint64_t bytes) {
  time_ += time;
  bytes_ += bytes;
  if (time_ < stretch_round_trips * round_trip_) return;
  rates_[next_] = static_cast<double>(std::exchange(bytes_, 0)) / static_cast<double>(std::exchange(time_, {}).count());
  next_ = (next_ + 1) % rates_.size();
}

std::uint64_t PathRate::in_flight_bytes(double share_of_path) const {
  const double rate = *std::max_element(rates_.begin(), rates_.end());
  return static_cast<std::uint64_t>(rate * static_cast<double>(round_trip_.count()) * share_of_path);
}

}  // namespace pccl
