// Over how many connections a link sends: as many as raise its throughput. A pure rule, which knows no clock and no
// socket.
//
// It climbs by doubling. The throughput of the number that is used is measured, then that of a trial with twice or
// half as many; more connections must be worth it, and fewer cost nothing, to stay. After a trial that has failed the
// other direction is tried, after a pause that grows. What is measured is only time in which the link was never short
// of bytes: how little goes over an idle link says nothing.
#pragma once

#include <chrono>
#include <cstdint>

namespace pccl {

class LaneCount {
 public:
  using Duration = std::chrono::steady_clock::duration;

  struct Bounds {
    std::uint32_t start = 1;
    std::uint32_t max = 1;
    Duration settling{};   // after a change, until connections are up to speed
    Duration measuring{};  // of each throughput
  };
  // By the kind of the link: one within a machine, few in a local network, many over long distances.
  static Bounds bounds_for(Duration round_trip, bool same_machine);

  explicit LaneCount(const Bounds& bounds) : bounds_(bounds), best_(bounds.start), used_(bounds.start) {}

  // To send over.
  std::uint32_t used() const { return used_; }
  // To have: while fewer are tried the others stay.
  std::uint32_t wanted() const { return used_ > best_ ? used_ : best_; }

  // For that time there was always more to send. `bytes`: what the other side has got meanwhile. `all_up`: as many
  // connections are up as are to be used.
  void add(Duration time, std::uint64_t bytes, bool all_up);

 private:
  void use(std::uint32_t number);
  void judge(double rate);
  void try_next();
  std::uint32_t next() const;

  const Bounds bounds_;
  std::uint32_t best_;
  std::uint32_t used_;
  bool up_ = true;  // the direction of the next trial
  bool settling_ = true;
  Duration elapsed_{};
  std::uint64_t bytes_ = 0;
  double best_rate_ = 0;  // bytes per tick of Duration
  Duration pause_left_{};
  Duration pause_{};  // after the next trial that fails; 0: the shortest
};

}  // namespace pccl
