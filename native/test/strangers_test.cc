// The data port faces whoever can reach it: none of them may disturb the ring.
#include <gtest/gtest.h>

#include <random>

#include "cluster.h"
#include "fake_peer.h"
#include "transport/handshake.h"

namespace pccl::test {
namespace {

void expect_ring_works(Cluster& cluster) {
  std::vector<std::vector<float>> data(cluster.size(), std::vector<float>(50'000, 1));
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    ops.push_back(
        cluster[rank].all_reduce({data[rank].data(), data[rank].data(), 50'000, DType::f32, ReduceOp::sum, 1}));
  }
  for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error);
  EXPECT_EQ(data[0], std::vector<float>(50'000, static_cast<float>(cluster.size())));
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) EXPECT_EQ(cluster[rank].lost.count(), 0u);
}

TEST(Strangers, GarbageIsTurnedAway) {
  Cluster cluster(2);
  std::mt19937 random(9);
  for (int i = 0; i < 20; ++i) {
    const UniqueFd stranger = connect_to(cluster[0].engine->port());
    std::vector<std::uint8_t> bytes(hello_bytes + random() % 1000);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    send_all(stranger.get(), bytes.data(), bytes.size());
    EXPECT_TRUE(closed_by_peer(stranger.get()));
  }
  expect_ring_works(cluster);
}

TEST(Strangers, WrongKeyTargetEpochAndOriginAreTurnedAway) {
  Cluster cluster(2);
  const Hello right{ConnectionKind::link, cluster.epoch(), 1, 2, test_key, {cluster.epoch(), 0}, 1, 0, 1};
  std::vector<Hello> wrong(5, right);
  wrong[0].key[15] ^= 1;
  wrong[1].to = 3;
  wrong[2].from = 9;
  wrong[3].epoch = 0;
  // wrong[4] is right in all but that nobody waits for it: the ring is complete.
  for (const Hello& hello : wrong) {
    for (const ConnectionKind kind : {ConnectionKind::link, ConnectionKind::state}) {
      if (kind == ConnectionKind::state && (hello.epoch == 0 || &hello == &wrong[4])) continue;
      Hello said = hello;
      said.kind = kind;
      if (kind == ConnectionKind::state) said.link = {}, said.lanes = 0, said.incarnation = 0;
      const UniqueFd stranger = connect_to(cluster[1].engine->port());
      const auto bytes = encode_hello(said);
      send_all(stranger.get(), bytes.data(), bytes.size());
      EXPECT_TRUE(closed_by_peer(stranger.get()));
    }
  }
  expect_ring_works(cluster);
}

// A peer that comes back to a link which the engine has given up, or has made anew, is told so, and gives it up too.
TEST(Strangers, AnOldLinkIsGone) {
  const auto answer = [](Cluster& cluster, LinkId link) {
    const UniqueFd fd = connect_to(cluster[1].engine->port());
    const auto bytes = encode_hello({ConnectionKind::link, cluster.epoch(), 1, 2, test_key, link, 1, 0, 100});
    send_all(fd.get(), bytes.data(), bytes.size());
    WelcomeBytes welcome;
    EXPECT_TRUE(receive_all(fd.get(), welcome.data(), welcome.size()));
    const auto said = decode_welcome(welcome);
    EXPECT_TRUE(said && closed_by_peer(fd.get()));
    EXPECT_EQ(said->status, Welcome::Status::gone);
    return said->link;
  };
  Cluster cluster(2);
  EXPECT_EQ(answer(cluster, {0, 7}), (LinkId{1, 0}));
  expect_ring_works(cluster);
  // One that claims to be later ends the link of an open epoch: its frames could be lost.
  EXPECT_EQ(answer(cluster, {1, 1}), (LinkId{1, 1}));
  EXPECT_EQ(cluster[1].lost.get().peer, 1u);
  EXPECT_EQ(answer(cluster, {1, 0}), (LinkId{1, 0}));
  // The other end hears it when it dials again.
  EXPECT_EQ(cluster[0].lost.get().peer, 2u);
  cluster.next_view();
  std::vector<float> a(10, 1), b(10, 2);
  const auto first = cluster[0].all_reduce({a.data(), a.data(), 10});
  const auto second = cluster[1].all_reduce({b.data(), b.data(), 10});
  EXPECT_FALSE(first.second.get().error);
  EXPECT_FALSE(second.second.get().error);
}

// More connections than are kept, silent or in the middle of their Hello: a new view can still be built.
TEST(Strangers, AFloodOfSilentOnesKeepsNobodyOutside) {
  Cluster cluster(2);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 200; ++i) {
    silent.push_back(connect_to(cluster[1].engine->port()));
    const auto bytes = encode_hello({});
    send_all(silent.back().get(), bytes.data(), static_cast<std::size_t>(i) % hello_bytes);
  }
  EXPECT_TRUE(closed_by_peer(silent.front().get()));
  cluster.add();
  cluster.next_view();
  expect_ring_works(cluster);
}

TEST(Strangers, SilenceIsTurnedAwayInTime) {
  Cluster cluster(2);
  const UniqueFd silent = connect_to(cluster[0].engine->port());
  expect_ring_works(cluster);
  EXPECT_TRUE(closed_by_peer(silent.get()));
}

// What follows a valid Hello of kind state is no request.
TEST(Strangers, BadStateRequestsEndTheirConnection) {
  Cluster cluster(2);
  const UniqueFd reader = connect_to(cluster[1].engine->port());
  const auto hello = encode_hello({ConnectionKind::state, cluster.epoch(), 1, 2, test_key});
  send_all(reader.get(), hello.data(), hello.size());
  WelcomeBytes welcome;
  ASSERT_TRUE(receive_all(reader.get(), welcome.data(), welcome.size()));
  const std::vector<std::uint8_t> garbage(64, 0xEE);
  send_all(reader.get(), garbage.data(), garbage.size());
  EXPECT_TRUE(closed_by_peer(reader.get()));
  expect_ring_works(cluster);
}

}  // namespace
}  // namespace pccl::test
