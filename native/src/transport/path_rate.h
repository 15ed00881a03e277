// What a path carries, and so how many bytes are to be on their way over it: what is enough to keep it full, and little
// more. Congestion control alone fills the queue in front of the slowest link until it drops, several connections at
// once the more so; and what is lost at the end of an op holds up the op.
//
// The rate is the best of the last few stretches, each long enough to even out the steps in which acknowledgements
// come. As more may be on its way than is needed, a path that has become faster shows it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace pccl {

class PathRate {
 public:
  using Duration = std::chrono::steady_clock::duration;

  explicit PathRate(Duration round_trip) : round_trip_(round_trip) {}

  // For that time there was always more to send, and this was acknowledged.
  void add(Duration time, std::uint64_t bytes);
  // To be on their way, and to be sent, at any time. 0: not known yet.
  std::uint64_t in_flight_bytes(double share_of_path) const;

 private:
  const Duration round_trip_;
  Duration time_{};
  std::uint64_t bytes_ = 0;
  std::array<double, 8> rates_{};  // bytes per tick of Duration
  std::size_t next_ = 0;
};

}  // namespace pccl
