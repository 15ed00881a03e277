// How many connections a link takes, on paths whose throughput by number of connections is known; and that two sides
// that have found out different numbers have the connections that the larger one asks for.
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/limits.h"
#include "cluster.h"
#include "fake_peer.h"
#include "transport/lane_count.h"
#include "transport/socket.h"

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
  EXPECT_EQ(count.used(), 4u);
}

TEST(LaneCount, AsManyAsFillALongPath) {
  LaneCount count = over(100ms);
  run(count, 30, limited(1000, 15'500));
  EXPECT_EQ(count.used(), 16u);
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
  LaneCount count = over(100ms);
  run(count, 15, [](std::uint32_t number) { return number <= 4 ? 1000.0 * number : 3000.0; });
  EXPECT_EQ(count.used(), 4u);
  EXPECT_EQ(count.wanted(), 4u);
}

// A path that has changed is found out later, and while fewer are tried the others stay.
TEST(LaneCount, FollowsThePath) {
  LaneCount count = over(50ms);
  run(count, 30, limited(1000, 2000));
  EXPECT_EQ(count.used(), 2u);
  run(count, 300, limited(1000, 8500));
  EXPECT_EQ(count.used(), 8u);
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

// A peer of one engine that accepts any number of lanes, and says how many it wants.
class ManyLanes {
 public:
  Member member() const { return {2, "127.0.0.1", local_port(listener_.get())}; }

  // Takes the next connection; gives its slot.
  std::uint32_t accept() {
    pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 60'000) != 1) throw std::runtime_error("nobody dials");
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    HelloBytes bytes;
    if (!receive_all(fd.get(), bytes.data(), bytes.size())) throw std::runtime_error("no hello");
    const auto hello = decode_hello(bytes);
    if (!hello || hello->lanes != 0) throw std::runtime_error("bad hello");
    const auto welcome = encode_welcome({Welcome::Status::welcome, hello->link, 0});
    send_all(fd.get(), welcome.data(), welcome.size());
    lanes_[hello->slot] = std::move(fd);
    return hello->slot;
  }
  void want(std::uint32_t count) {
    std::vector<std::uint8_t> bytes;
    append_frame({0, {}, LanesBody{count}, ++sent_}, bytes);
    send_all(lanes_.at(0).get(), bytes.data(), bytes.size());
  }
  // Whatever comes before.
  void await_end(std::uint32_t slot) {
    std::uint8_t byte;
    while (::recv(lanes_.at(slot).get(), &byte, 1, 0) == 1) {
    }
    lanes_.erase(slot);
  }

 private:
  UniqueFd listener_ = listen_tcp("127.0.0.1", 0);
  std::map<std::uint32_t, UniqueFd> lanes_;
  std::uint64_t sent_ = 0;
};

TEST(Lanes, AsManyAsThePeerWants) {
  ManyLanes peer;
  Cluster cluster(1, {0});
  const View view{.epoch = 2,
                  .view_epoch = 2,
                  .self = cluster[0].id,
                  .key = test_key,
                  .ring = {cluster[0].member(), peer.member()},
                  .world_size = 2,
                  .silence_ms = 10'000};
  cluster[0].engine->prepare(view, 60'000);
  ASSERT_EQ(peer.accept(), 0u);
  peer.want(4);
  std::vector<std::uint32_t> slots;
  for (int i = 0; i < 3; ++i) slots.push_back(peer.accept());
  std::sort(slots.begin(), slots.end());
  EXPECT_EQ(slots, (std::vector<std::uint32_t>{1, 2, 3}));
  peer.want(1);
  for (const std::uint32_t slot : {1u, 2u, 3u}) peer.await_end(slot);
  // Had it dialled any of those again, this would be another one.
  peer.want(2);
  EXPECT_EQ(peer.accept(), 1u);
  EXPECT_EQ(cluster[0].lost.count(), 0u);
}

}  // namespace
}  // namespace pccl::test
