// Links that lose connections: ops go on as if nothing had happened, and only a link that can't be restored is told.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <thread>

#include "cluster.h"
#include "flaky_proxy.h"

namespace pccl::test {
namespace {

using namespace std::chrono_literals;

// A proxy for each direction in which two peers dial.
class Proxies {
 public:
  Cluster::Edit edit(std::uint32_t silence_ms) {
    return [this, silence_ms](View& view) {
      view.silence_ms = silence_ms;
      for (Member& member : view.ring) {
        if (member.id == view.self) continue;
        auto& proxy = proxies_[{view.self, member.id}];
        if (!proxy) proxy = std::make_unique<FlakyProxy>(member.port);
        member.port = proxy->port();
      }
    };
  }
  FlakyProxy& at(PeerId from, PeerId to) { return *proxies_.at({from, to}); }
  template <typename F>
  void for_each(F f) {
    for (auto& [pair, proxy] : proxies_) f(*proxy);
  }
  std::size_t resets() const {
    std::size_t sum = 0;
    for (const auto& [pair, proxy] : proxies_) sum += proxy->resets();
    return sum;
  }

 private:
  std::map<std::pair<PeerId, PeerId>, std::unique_ptr<FlakyProxy>> proxies_;
};

// Long enough that no loaded machine takes a healthy link for a silent one.
constexpr std::uint32_t patient_ms = 20'000;

float element(std::size_t rank, std::uint64_t tag, std::uint64_t i) {
  return static_cast<float>((rank * 7919 + tag * 13 + i * 31) % 2001) - 1000;
}

// One op on all peers: starts, and then compares with the exact sums.
class Sum {
 public:
  Sum(Cluster& cluster, std::uint64_t tag, std::uint64_t count, bool in_place)
      : tag_(tag), count_(count), send_(cluster.size()), recv_(cluster.size()) {
    for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
      send_[rank].resize(count);
      for (std::uint64_t i = 0; i < count; ++i) send_[rank][i] = element(rank, tag, i);
      if (!in_place) recv_[rank].resize(count);
      float* const into = in_place ? send_[rank].data() : recv_[rank].data();
      ops_.push_back(cluster[rank].all_reduce({send_[rank].data(), into, count, DType::f32, ReduceOp::sum, tag}));
    }
  }
  void expect_right() {
    std::vector<float> sums(count_);
    for (std::uint64_t i = 0; i < count_; ++i) {
      for (std::size_t rank = 0; rank < send_.size(); ++rank) sums[i] += element(rank, tag_, i);
    }
    for (std::size_t rank = 0; rank < ops_.size(); ++rank) {
      const OpResult result = ops_[rank].second.get();
      ASSERT_FALSE(result.error) << result.error->message;
      const auto& got = recv_[rank].empty() ? send_[rank] : recv_[rank];
      ASSERT_EQ(std::memcmp(got.data(), sums.data(), count_ * sizeof(float)), 0) << "rank " << rank << " tag " << tag_;
    }
  }
  bool over() const {
    std::size_t ended = 0;
    for (const auto& [id, result] : ops_) ended += result.count();
    return ended == ops_.size();
  }

 private:
  std::uint64_t tag_, count_;
  std::vector<std::vector<float>> send_, recv_;
  std::vector<PendingOp> ops_;
};

void expect_no_link_lost(Cluster& cluster) {
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) EXPECT_EQ(cluster[rank].lost.count(), 0u);
}

template <typename F>
void wait_until(F condition) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("didn't come true within a minute");
    std::this_thread::sleep_for(1ms);
  }
}

struct Shape {
  std::size_t peers;
  std::uint32_t lanes;
};
class Resume : public testing::TestWithParam<Shape> {
 protected:
  Proxies proxies_;
  Cluster cluster_{GetParam().peers, std::vector<std::uint32_t>(GetParam().peers, GetParam().lanes),
                   proxies_.edit(patient_ms)};
};

// Ops of many chunks, several at once, in place and not, while every connection is cut again and again.
TEST_P(Resume, ResetsAtAnyChunk) {
  std::mt19937 random(7);
  proxies_.for_each([](FlakyProxy& proxy) { proxy.reset_after(3 << 20); });
  for (int round = 0; round < 6; ++round) {
    std::vector<std::unique_ptr<Sum>> sums;
    for (std::uint64_t tag = 0; tag < 4; ++tag) {
      const std::uint64_t count = 1 + random() % (tag == 0 ? 4'000'000 : 700'000);
      sums.push_back(std::make_unique<Sum>(cluster_, tag, count, tag % 2 == 0));
    }
    for (const auto& sum : sums) sum->expect_right();
  }
  EXPECT_GT(proxies_.resets(), 10u);
  expect_no_link_lost(cluster_);
  EXPECT_EQ(cluster_.epoch(), 1u);
}

// Small ops, so that what is cut are mostly the frames that agree, commit and acknowledge.
TEST_P(Resume, ResetsBetweenAnyFrames) {
  proxies_.for_each([](FlakyProxy& proxy) { proxy.reset_after(3000); });
  for (std::uint64_t round = 0; round < 25; ++round) {
    std::vector<std::unique_ptr<Sum>> sums;
    for (std::uint64_t tag = 0; tag < 5; ++tag) sums.push_back(std::make_unique<Sum>(cluster_, tag, 1 + round, true));
    for (const auto& sum : sums) sum->expect_right();
  }
  EXPECT_GT(proxies_.resets(), 10u);
  expect_no_link_lost(cluster_);
}

// Caller's withdrawals have to reach everybody too.
TEST_P(Resume, CancelsAreNotLost) {
  proxies_.for_each([](FlakyProxy& proxy) { proxy.reset_after(2000); });
  for (int round = 0; round < 30; ++round) {
    std::vector<std::vector<float>> data(cluster_.size(), std::vector<float>(50'000, 1));
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < cluster_.size(); ++rank) {
      ops.push_back(cluster_[rank].all_reduce({data[rank].data(), data[rank].data(), 50'000}));
    }
    const bool accepted = cluster_[1].engine->cancel(ops[1].first);
    for (std::size_t rank = 0; rank < cluster_.size(); ++rank) {
      ASSERT_EQ(ops[rank].second.get().error.has_value(), accepted);
      ASSERT_EQ(data[rank][49'999], accepted ? 1.0f : static_cast<float>(cluster_.size()));
    }
  }
  expect_no_link_lost(cluster_);
}

// Views follow each other while connections are cut: links are kept over them, and resume at any stage.
TEST_P(Resume, ResetsAroundViews) {
  std::mt19937 random(5);
  for (int round = 0; round < 8; ++round) {
    Sum before(cluster_, 1, 400'000, true);
    if (round % 4 == 0) proxies_.for_each([](FlakyProxy& proxy) { proxy.reset(); });
    before.expect_right();
    const auto reports = cluster_.prepare();
    if (round % 4 == 1) proxies_.for_each([](FlakyProxy& proxy) { proxy.reset(); });
    Sum waiting(cluster_, 2, 400'000, false);
    cluster_.await_prepared();
    if (round % 4 == 2) proxies_.for_each([](FlakyProxy& proxy) { proxy.reset(); });
    cluster_.install(Cluster::decide(reports));
    if (round % 4 == 3) proxies_.for_each([](FlakyProxy& proxy) { proxy.reset(); });
    waiting.expect_right();
  }
  EXPECT_GT(proxies_.resets(), 4u);
  expect_no_link_lost(cluster_);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Resume,
                         testing::Values(Shape{2, 1}, Shape{2, 4}, Shape{3, 2}, Shape{4, 1}, Shape{5, 3}),
                         [](const auto& shape) {
                           return std::to_string(shape.param.peers) + "peers" + std::to_string(shape.param.lanes) +
                                  "lanes";
                         });

// The larger number counts, and both sides see the same connections.
TEST(Lanes, PeersWithDifferentNumbersUseTheLarger) {
  for (const std::vector<std::uint32_t>& lanes : {std::vector<std::uint32_t>{1, 4}, {4, 1}}) {
    Proxies proxies;
    Cluster cluster(2, lanes, proxies.edit(patient_ms));
    wait_until([&] { return proxies.at(1, 2).connections() + proxies.at(2, 1).connections() >= 4; });
    Sum(cluster, 1, 2'000'000, true).expect_right();
    EXPECT_EQ(proxies.at(1, 2).connections() + proxies.at(2, 1).connections(), 4u);
    expect_no_link_lost(cluster);
  }
}

// One of four falls silent for good: what was on it goes over the others, and its op ends.
TEST(Lanes, OneOfFourIsBlackHoled) {
  Proxies proxies;
  Cluster cluster(2, {4, 4}, proxies.edit(1500));
  wait_until([&] { return proxies.at(1, 2).connections() == 4; });
  Sum(cluster, 1, 1'000'000, true).expect_right();
  proxies.at(1, 2).refuse(true);
  proxies.at(2, 1).refuse(true);
  for (std::uint64_t round = 0; round < 3; ++round) {
    proxies.at(1, 2).hold_one(round);
    Sum(cluster, 2 + round, 3'000'000, false).expect_right();
  }
  expect_no_link_lost(cluster);
}

TEST(Lanes, OneReachableSideIsEnough) {
  for (const bool lower_reaches : {true, false}) {
    for (const std::uint32_t lanes : {1u, 3u}) {
      Proxies proxies;
      const auto through = proxies.edit(patient_ms);
      const PeerId shut_out = lower_reaches ? 2 : 1;
      Cluster cluster(2, {lanes, lanes}, [&](View& view) {
        through(view);
        if (view.self == shut_out) proxies.at(shut_out, 3 - shut_out).refuse(true);
      });
      Sum(cluster, 1, 300'000, true).expect_right();
      proxies.for_each([](FlakyProxy& proxy) { proxy.reset(); });
      Sum(cluster, 2, 300'000, true).expect_right();
      EXPECT_EQ(proxies.at(shut_out, 3 - shut_out).connections(), 0u);
      expect_no_link_lost(cluster);
    }
  }
}

// A cable is pulled, in both directions or in one: found within the silence, by whoever hears nothing; then a view
// without the link, and with it again.
class Silence : public testing::TestWithParam<int> {};

TEST_P(Silence, IsFoundAndTheLinkIsMadeAnew) {
  Proxies proxies;
  Cluster cluster(3, {2, 2, 2}, proxies.edit(700));
  const auto hold = [&](bool on) {
    proxies.at(1, 2).hold(on && GetParam() != 1, on && GetParam() != 2);
    proxies.at(2, 1).hold(on && GetParam() != 2, on && GetParam() != 1);
  };
  Sum(cluster, 1, 100'000, true).expect_right();
  hold(true);
  Sum stuck(cluster, 2, 3'000'000, true);
  const std::size_t finder = GetParam() == 2 ? 1 : 0;
  const Lost lost = cluster[finder].lost.get();
  EXPECT_EQ(lost.epoch, 1u);
  EXPECT_EQ(lost.peer, cluster[1 - finder].id);
  EXPECT_NE(lost.reason.find("700 ms"), std::string::npos) << lost.reason;
  EXPECT_FALSE(stuck.over());
  EXPECT_EQ(cluster[2].lost.count(), 0u);
  hold(false);
  const auto reports = cluster.prepare();
  cluster.await_prepared();
  cluster.install(Cluster::decide(reports));
  Sum(cluster, 3, 100'000, true).expect_right();
}

INSTANTIATE_TEST_SUITE_P(Directions, Silence, testing::Values(0, 1, 2));

}  // namespace
}  // namespace pccl::test
