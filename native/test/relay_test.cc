// Pairs that can't reach each other and are linked through a third member, which may come, go and die.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cluster.h"
#include "fake_peer.h"
#include "transport/handshake.h"

namespace pccl::test {
namespace {

// Peers 1 and 2 know only the port of `relay` for each other.
Cluster::Edit through(PeerId relay) {
  return [relay](View& view) {
    view.silence_ms = 1000;
    const auto find = [&](PeerId id) -> Member& {
      return *std::find_if(view.ring.begin(), view.ring.end(), [id](const Member& member) { return member.id == id; });
    };
    if (view.self == relay) view.relays = {{2, 1}};
    if (view.self > 2) return;
    Member& other = find(3 - view.self);
    other.via = relay;
    other.port = find(relay).port;
  };
}

void expect_sum(Cluster& cluster, std::uint64_t count) {
  std::vector<std::vector<float>> data(cluster.size(), std::vector<float>(count, 1));
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    ops.push_back(cluster[rank].all_reduce({data[rank].data(), data[rank].data(), count}));
  }
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    const auto result = ops[rank].second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    ASSERT_EQ(data[rank], std::vector<float>(count, static_cast<float>(cluster.size())));
  }
}

TEST(Relay, ForwardsLinksAndState) {
  for (const std::uint32_t lanes : {1u, 3u}) {
    Cluster cluster(3, {lanes, lanes, lanes}, through(3));
    expect_sum(cluster, 10);
    expect_sum(cluster, 3'000'000);

    std::vector<double> state(500'000, 2.5), fetched(500'000);
    const auto exported = cluster[0].export_state({{"w", state.data(), state.size() * sizeof(double)}});
    ASSERT_FALSE(exported.second.get().error);
    const auto wanted = cluster[1].export_state({{"w", fetched.data(), fetched.size() * sizeof(double)}});
    ASSERT_FALSE(wanted.second.get().error);
    const auto hash = cluster[0].engine->hashes(exported.first)[0];
    // Where to dial for it, the view says.
    const auto fetch = cluster[1].fetch_state({.export_id = wanted.first,
                                               .targets = {{.tensor = 0, .root = hash}},
                                               .sources = {{.member = cluster[0].member()}}});
    const auto result = fetch.second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    ASSERT_FALSE(cluster[1].commit_state(wanted.first).second.get().error);
    EXPECT_EQ(fetched, state);
    for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(cluster[rank].lost.count(), 0u);
  }
}

// The link is made anew through somebody else, or directly, without its ends noticing more than a view.
TEST(Relay, PathsChangeWithTheView) {
  Cluster cluster(4, {}, through(3));
  expect_sum(cluster, 100'000);
  cluster.set_edit(through(4));
  cluster.next_view();
  expect_sum(cluster, 100'000);
  cluster.set_edit(nullptr);
  cluster.next_view();
  expect_sum(cluster, 100'000);
  for (std::size_t rank = 0; rank < 4; ++rank) EXPECT_EQ(cluster[rank].lost.count(), 0u);
}

TEST(Relay, ItsDeathLosesTheLinksThroughIt) {
  Cluster cluster(4, {}, through(4));
  expect_sum(cluster, 1000);
  cluster.kill(3);
  // The pair loses the relay and each other, in some order; whoever of the others is linked with it loses it.
  for (std::size_t rank = 0; rank < 2; ++rank) {
    std::set<PeerId> lost;
    for (const Lost& one : cluster[rank].lost.get(2)) lost.insert(one.peer);
    EXPECT_EQ(lost, (std::set<PeerId>{4, 2 - rank}));
  }
  cluster.set_edit(through(3));
  cluster.next_view();
  expect_sum(cluster, 100'000);
}

TEST(Relay, ServesOnlyItsPairs) {
  Cluster cluster(3, {}, through(3));
  Hello hello{ConnectionKind::state, cluster.epoch(), 1, 2, test_key};
  const auto turned_away = [&] {
    const UniqueFd fd = connect_to(cluster[2].engine->port());
    const auto bytes = encode_hello(hello);
    send_all(fd.get(), bytes.data(), bytes.size());
    return closed_by_peer(fd.get());
  };
  EXPECT_FALSE(turned_away());  // peer 2's Welcome comes
  hello.to = 7;
  EXPECT_TRUE(turned_away());
  hello.to = 2;
  hello.key[0] ^= 1;
  EXPECT_TRUE(turned_away());
  cluster.set_edit(nullptr);
  cluster.next_view();
  hello.key[0] ^= 1;
  hello.epoch = cluster.epoch();
  EXPECT_TRUE(turned_away());
  expect_sum(cluster, 1000);
}

}  // namespace
}  // namespace pccl::test
