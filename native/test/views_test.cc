// Prepare and install: links kept and made, members that come and go, what can't be reached, and bad arguments.
#include <gtest/gtest.h>

#include "cluster.h"
#include "fake_peer.h"
#include "transport/socket.h"

namespace pccl::test {
namespace {

void expect_sum(Cluster& cluster, std::uint64_t tag = 0) {
  std::vector<std::vector<double>> data(cluster.size(), std::vector<double>(1000, 1));
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    ops.push_back(
        cluster[rank].all_reduce({data[rank].data(), data[rank].data(), 1000, DType::f64, ReduceOp::sum, tag}));
  }
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    const auto result = ops[rank].second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    EXPECT_EQ(result.world_size, cluster.size());
    EXPECT_EQ(data[rank], std::vector<double>(1000, static_cast<double>(cluster.size())));
  }
}

TEST(Views, GrowAndShrink) {
  Cluster cluster(1);
  expect_sum(cluster);
  for (int i = 0; i < 5; ++i) {
    cluster.add();
    cluster.next_view();
    expect_sum(cluster);
  }
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    const auto view = cluster[rank].engine->view();
    ASSERT_TRUE(view);
    EXPECT_EQ(view->epoch, cluster.epoch());
    EXPECT_EQ(view->self, cluster[rank].id);
    EXPECT_EQ(view->rank, rank);
    EXPECT_EQ(view->group_size, 6u);
    EXPECT_EQ(view->world_size, 6u);
  }
  while (cluster.size() > 1) {
    cluster.kill(cluster.size() / 2);
    cluster.next_view();
    expect_sum(cluster);
  }
}

TEST(Views, ALostLinkIsToldOnce) {
  Cluster cluster(3);
  cluster.kill(1);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    const Lost lost = cluster[rank].lost.get();
    EXPECT_EQ(lost.epoch, 1u);
    EXPECT_EQ(lost.peer, 2u);
  }
  cluster.next_view();
  expect_sum(cluster);
  EXPECT_EQ(cluster[0].lost.count() + cluster[1].lost.count(), 2u);
}

// Nobody listens at one member's port; a newer view without it replaces the one that fails.
TEST(Views, PrepareNamesWhoCantBeReached) {
  const auto engine = Engine::create({});
  Awaited<std::vector<LinkFailure>> first, second;
  engine->set_control({.prepared = [&](Epoch epoch, const std::vector<LinkFailure>& failures) {
    (epoch == 1 ? first : second).set(failures);
  }});
  std::uint16_t dead_port = 0;
  {
    const UniqueFd listener = listen_tcp("127.0.0.1", 0);
    dead_port = local_port(listener.get());
  }
  View view{.epoch = 1, .view_epoch = 1, .self = 5, .key = test_key, .ring = {}, .world_size = 3};
  view.ring = {{6, "127.0.0.1", dead_port}, {5, "127.0.0.1", engine->port()}, {7, "127.0.0.1", dead_port}};
  engine->prepare(view, 200);
  const auto failures = first.get();
  ASSERT_EQ(failures.size(), 2u);
  EXPECT_EQ(failures[0].peer, 6u);
  EXPECT_EQ(failures[1].peer, 7u);
  EXPECT_NE(failures[1].reason.find("refused"), std::string::npos) << failures[1].reason;
  view.epoch = 2;
  view.ring = {{5, "127.0.0.1", engine->port()}};
  engine->prepare(view, 200);
  EXPECT_TRUE(second.get().empty());
  engine->install(2, {});
  EXPECT_EQ(engine->view()->group_size, 1u);
}

TEST(Views, HostNamesAreResolved) {
  Cluster cluster(2);
  cluster.set_edit([](View& view) {
    for (Member& member : view.ring) member.host = "localhost";
  });
  cluster.add();
  cluster.next_view();
  expect_sum(cluster);
  EXPECT_THROW(Engine::create({.host = "no.such.host.invalid", .port = 0}), EngineError);
}

// The peer that dials has heard of the view long before the other one.
TEST(Views, AnEarlyDialWaits) {
  const auto engine = Engine::create({});
  Awaited<std::vector<LinkFailure>> prepared;
  engine->set_control({.prepared = [&](Epoch, const std::vector<LinkFailure>& failures) { prepared.set(failures); }});
  const UniqueFd early = connect_to(engine->port());
  const auto hello = encode_hello({ConnectionKind::link, 4, 1, 2, test_key, {4, 0}, 1, 0, 1});
  send_all(early.get(), hello.data(), hello.size());
  engine->prepare({.epoch = 4,
                   .view_epoch = 4,
                   .self = 2,
                   .key = test_key,
                   .ring = {{1, "127.0.0.1", 1}, {2, "127.0.0.1", engine->port()}},
                   .world_size = 2},
                  30'000);
  WelcomeBytes welcome;
  ASSERT_TRUE(receive_all(early.get(), welcome.data(), welcome.size()));
  const auto said = decode_welcome(welcome);
  ASSERT_TRUE(said);
  EXPECT_EQ(said->status, Welcome::Status::welcome);
  EXPECT_EQ(said->link, (LinkId{4, 0}));
  // The lane counts when the side that dialled has used it.
  std::vector<std::uint8_t> ack;
  append_frame({0, {}, AckBody{}}, ack);
  send_all(early.get(), ack.data(), ack.size());
  EXPECT_TRUE(prepared.get().empty());
}

TEST(Views, BadOnesAreRefused) {
  Cluster cluster(2);
  const auto refused = [&](auto change) {
    View view = cluster.view_for(cluster[0]);
    view.epoch = 10;
    change(view);
    try {
      cluster[0].engine->prepare(view, 1000);
      return false;
    } catch (const EngineError& error) {
      return error.error().code == ErrorCode::invalid_argument;
    }
  };
  EXPECT_TRUE(refused([](View& view) { view.epoch = 0; }));
  EXPECT_TRUE(refused([](View& view) { view.epoch = 1; }));
  EXPECT_TRUE(refused([](View& view) { view.ring.clear(); }));
  EXPECT_TRUE(refused([](View& view) { view.self = 77; }));
  EXPECT_TRUE(refused([](View& view) { view.self = 2; }));
  EXPECT_TRUE(refused([](View& view) { view.ring[1].id = 1; }));
  EXPECT_TRUE(refused([](View& view) { view.ring[1].port = 0; }));
  EXPECT_TRUE(refused([](View& view) { view.ring[1].host.clear(); }));
  EXPECT_THROW(cluster[0].engine->install(1, {}), EngineError);
  EXPECT_THROW(cluster[0].engine->install(2, {}), EngineError);
  expect_sum(cluster);  // nothing has changed
}

}  // namespace
}  // namespace pccl::test
