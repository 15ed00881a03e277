// How many connections a link takes, on paths whose throughput by number of connections is known.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/limits.h"
#include "transport/lane_count.h"

namespace pccl::test {
namespace {

using namespace std::chrono_literals;

using Rate = std::function<double(std::uint32_t)>;  // of so many connections, in bytes per millisecond

// `seconds` of an op without end.
void run(LaneCount& count, double seconds, const Rate& rate) {
  for (int step = 0; step < static_cast<int>(seconds * 10); ++step) {
    count.add(100ms, static_cast<std::uint64_t>(rate(count.used()) * 100), true);
  }
}

Rate limited(double per_connection, double path) {
  return [=](std::uint32_t number) { return std::min(number * per_connection, path); };
}

LaneCount over(LaneCount::Duration round_trip) { return LaneCount(LaneCount::bounds_for(round_trip, false)); }

TEST(LaneCount, OneWithinAMachine) {
  LaneCount count(LaneCount::bounds_for(1ms, true));
  run(count, 100, limited(1000, 64'000));
  EXPECT_EQ(count.used(), 1u);
  EXPECT_EQ(count.wanted(), 1u);
}

TEST(LaneCount, FewInALocalNetwork) {
  LaneCount count = over(300us);
  EXPECT_EQ(count.used(), 1u);
  run(count, 15, limited(1000, 64'000));
  EXPECT_EQ(count.wanted(), 4u);
}

TEST(LaneCount, AsManyAsFillALongPath) {
  LaneCount count = over(100ms);
  run(count, 30, limited(1000, 15'500));
  EXPECT_EQ(count.wanted(), 16u);
}

TEST(LaneCount, NoMoreThanTheMost) {
  LaneCount count = over(100ms);
  run(count, 1000, limited(1000, 1e9));
  EXPECT_EQ(count.wanted(), limits::adaptive_connections_max);
}

TEST(LaneCount, FewerWhenTheyDoAsWell) {
  LaneCount count = over(100ms);
  run(count, 120, limited(4000, 4000));
  EXPECT_EQ(count.used(), 1u);
  EXPECT_EQ(count.wanted(), 1u);
}

TEST(LaneCount, WhatHarmsIsTakenBack) {
  LaneCount count = over(50ms);
  run(count, 15, [](std::uint32_t number) { return number <= 4 ? 1000.0 * number : 3000.0; });
  EXPECT_EQ(count.wanted(), 4u);
}

// A path that has changed is found out later, and while fewer are tried the others stay.
TEST(LaneCount, FollowsThePath) {
  LaneCount count = over(50ms);
  run(count, 30, limited(1000, 2000));
  EXPECT_EQ(count.wanted(), 2u);
  run(count, 300, limited(1000, 8500));
  EXPECT_EQ(count.wanted(), 8u);
}

// Slow start, not the number of connections: nothing is concluded from it.
TEST(LaneCount, WaitsUntilTheThroughputIsSteady) {
  LaneCount count = over(100ms);
  const std::uint32_t start = count.used();
  double rate = 100;
  for (int step = 0; step < 60; ++step) {
    rate *= 1.03;
    count.add(100ms, static_cast<std::uint64_t>(rate * 100), true);
    ASSERT_EQ(count.used(), start);
  }
}

TEST(LaneCount, ConnectionsThatDontComeAreGivenUp) {
  LaneCount count = over(100ms);
  const std::uint32_t start = count.used();
  while (count.used() == start) run(count, 0.1, limited(1000, 1e9));
  EXPECT_EQ(count.used(), 2 * start);
  for (int step = 0; step < 200; ++step) count.add(100ms, 1000, false);
  EXPECT_EQ(count.used(), start);
}

}  // namespace
}  // namespace pccl::test
