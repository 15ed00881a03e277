// Collectives of every kind that fail: calls that differ, withdrawals, lost members, verdicts, views that change. All
// members of an op must see the same outcome.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "base/collectives.h"
#include "cluster.h"
#include "flaky_proxy.h"

namespace pccl::test {
namespace {

using namespace std::chrono_literals;

// The memory of one member's part in one op, and its call. Each kind is long enough to need several chunks, or, short,
// to go with its `ready`.
struct Part {
  std::vector<float> send, recv;
  CollectiveCall call;
};

struct Case {
  Collective kind;
  std::uint64_t count;
  QuantizedFormat format = QuantizedFormat::none;
};

class Parts {
 public:
  // Member `rank` of `members` calls a collective of `kind`; the root, or the sender, is the second member, and the
  // receiver the first. Members that have no part in a send have no call.
  Parts(Cluster& members, const Case& of, std::uint64_t tag) : parts_(members.size()) {
    const auto [kind, count, format] = of;
    const std::size_t ranks = members.size();
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      Part& part = parts_[rank];
      const bool at_root = rank == 1;
      Collective of_rank = kind;
      std::uint64_t send = 0;
      std::uint64_t recv = 0;
      PeerId peer = members[1].id;
      switch (kind) {
        case Collective::all_reduce:
          send = recv = count;
          break;
        case Collective::reduce_scatter:
          send = ranks * count;
          recv = count;
          break;
        case Collective::all_gather:
          send = count;
          recv = ranks * count;
          break;
        case Collective::broadcast:
          recv = count;
          break;
        case Collective::all_to_all:
          send = recv = ranks * count;
          break;
        case Collective::gather:
          send = count;
          recv = at_root ? ranks * count : 0;
          break;
        case Collective::scatter:
          send = at_root ? ranks * count : 0;
          recv = count;
          break;
        case Collective::barrier:
          break;
        case Collective::send:
        case Collective::recv:
          if (rank > 1) continue;
          of_rank = at_root ? Collective::send : Collective::recv;
          (at_root ? send : recv) = count;
          if (at_root) peer = members[0].id;
          break;
      }
      part.send.assign(send, static_cast<float>(rank + 1));
      part.recv.assign(recv, at_root && kind == Collective::broadcast ? 5.0f : -1.0f);
      part.call = {.kind = of_rank,
                   .send = part.send.data(),
                   .send_count = send,
                   .recv = part.recv.data(),
                   .recv_count = recv,
                   .tag = tag,
                   .peer = peer,
                   .quantization = {.format = format}};
      callers_.push_back(rank);
    }
  }

  Part& operator[](std::size_t rank) { return parts_[rank]; }
  const std::vector<std::size_t>& callers() const { return callers_; }
  bool untouched(std::size_t rank) const {
    const std::vector<float>& send = parts_[rank].send;
    return std::all_of(send.begin(), send.end(), [&](float value) { return value == static_cast<float>(rank + 1); });
  }

 private:
  std::vector<Part> parts_;
  std::vector<std::size_t> callers_;
};

class EveryKind : public testing::TestWithParam<Case> {
 protected:
  Parts parts(Cluster& cluster, std::uint64_t tag) const { return {cluster, GetParam(), tag}; }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (std::uint8_t kind = 0; kind < static_cast<std::uint8_t>(Collective::recv); ++kind) {
    for (const std::uint64_t count : {std::uint64_t{100}, std::uint64_t{600'000}}) {
      all.push_back({static_cast<Collective>(kind), count});
      if (traits(all.back().kind).reduces) all.push_back({all.back().kind, count, QuantizedFormat::u8});
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind, testing::ValuesIn(cases()), [](const auto& of) {
  const char* const quantized = of.param.format == QuantizedFormat::none ? "" : "_quantized";
  return std::string(traits(of.param.kind).name) + quantized + (of.param.count > 1000 ? "_long" : "_short");
});

// All but one have called.
TEST_P(EveryKind, CancelReachesAllAndTheNextOneWorks) {
  Cluster cluster(3);
  Parts mine = parts(cluster, 4);
  std::vector<PendingOp> ops;
  for (std::size_t i = 1; i < mine.callers().size(); ++i) {
    const std::size_t rank = mine.callers()[i];
    ops.push_back(cluster[rank].start(mine[rank].call));
  }
  ASSERT_TRUE(cluster[mine.callers().back()].engine->cancel(ops.back().first));
  ops.push_back(cluster[0].start(mine[0].call));
  for (const auto& [id, result] : ops) {
    const auto error = result.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::cancelled);
    EXPECT_EQ(error->peer, cluster[mine.callers().back()].id);
    EXPECT_NE(error->message.find("tag 4"), std::string::npos) << error->message;
  }
  for (const std::size_t rank : mine.callers()) EXPECT_TRUE(mine.untouched(rank));
  ops.clear();
  for (const std::size_t rank : mine.callers()) ops.push_back(cluster[rank].start(mine[rank].call));
  for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
}

TEST_P(EveryKind, CancelAtAnyMomentEndsAlikeForAll) {
  Cluster cluster(3);
  std::mt19937 random(3);
  for (int repeat = 0; repeat < 12; ++repeat) {
    Parts mine = parts(cluster, 4);
    std::vector<PendingOp> ops;
    for (const std::size_t rank : mine.callers()) ops.push_back(cluster[rank].start(mine[rank].call));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 800));
    const bool accepted = cluster[1].engine->cancel(ops[1].first);
    for (const auto& [id, result] : ops) ASSERT_EQ(result.get().error.has_value(), accepted);
  }
}

// The view changes at any moment; the stand-in for the coordinator decides, and nobody sees anything else.
TEST_P(EveryKind, VerdictsAreTheSameForAll) {
  Cluster cluster(3);
  std::mt19937 random(7);
  for (int repeat = 0; repeat < 8; ++repeat) {
    Parts mine = parts(cluster, 4);
    std::vector<PendingOp> ops;
    for (const std::size_t rank : mine.callers()) ops.push_back(cluster[rank].start(mine[rank].call));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 1500));
    cluster.next_view();
    const auto first = ops[0].second.get().error;
    for (const auto& [id, result] : ops) {
      const auto error = result.get().error;
      ASSERT_EQ(error.has_value(), first.has_value());
      if (error) {
        EXPECT_EQ(error->code, ErrorCode::peer_lost) << error->message;
      }
    }
    for (const std::size_t rank : mine.callers()) EXPECT_TRUE(mine.untouched(rank));
  }
}

// One member is gone while the others wait for it.
TEST_P(EveryKind, LossOfAMemberEndsTheOp) {
  Cluster cluster(3);
  Parts mine = parts(cluster, 4);
  std::vector<PendingOp> ops;
  for (const std::size_t rank : mine.callers()) {
    if (rank != 0) ops.push_back(cluster[rank].start(mine[rank].call));
  }
  cluster.kill(0);
  cluster.next_view();
  for (const auto& [id, result] : ops) {
    const auto error = result.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::peer_lost);
    EXPECT_EQ(error->peer, 1u);
  }
}

// The view has changed since the caller looked at it, and the group is as large as before.
TEST_P(EveryKind, ShapedForAnOlderRing) {
  Cluster cluster(3);
  cluster.next_view();
  const bool bound = traits(GetParam().kind).bound_to_view;
  for (const Epoch ring_epoch : {Epoch{1}, Epoch{2}}) {
    Parts mine = parts(cluster, 4);
    std::vector<PendingOp> ops;
    for (const std::size_t rank : mine.callers()) {
      CollectiveCall call = mine[rank].call;
      call.ring_epoch = ring_epoch;
      try {
        ops.push_back(cluster[rank].start(call));
      } catch (const EngineError& error) {
        EXPECT_TRUE(bound && ring_epoch == 1);
        EXPECT_EQ(error.error().code, ErrorCode::peer_lost);
      }
    }
    EXPECT_EQ(ops.empty(), bound && ring_epoch == 1);
    for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
  }
}

// A call made while the view changes begins in the next one, unless the ranks say what its buffers are.
TEST_P(EveryKind, CallsBetweenTheViews) {
  Cluster cluster(3);
  Parts mine = parts(cluster, 4);
  const auto verdicts = Cluster::decide(cluster.prepare());
  std::vector<PendingOp> ops;
  for (const std::size_t rank : mine.callers()) ops.push_back(cluster[rank].start(mine[rank].call));
  cluster.await_prepared();
  cluster.install(verdicts);
  const bool bound = traits(GetParam().kind).bound_to_view;
  for (const auto& [id, result] : ops) {
    const auto error = result.get().error;
    ASSERT_EQ(error.has_value(), bound) << error->message;
    if (!bound) continue;
    EXPECT_EQ(error->code, ErrorCode::peer_lost);
    EXPECT_EQ(error->epoch, 2u);
    EXPECT_NE(error->message.find("view changed to epoch 2"), std::string::npos) << error->message;
  }
  // It has taken no number: the next calls meet, also with those who call for the first time.
  ops.clear();
  for (const std::size_t rank : mine.callers()) ops.push_back(cluster[rank].start(mine[rank].call));
  for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
}

TEST_P(EveryKind, CloseEndsIt) {
  Cluster cluster(3);
  Parts mine = parts(cluster, 4);
  const auto op = cluster[0].start(mine[0].call);
  cluster[0].engine->close();
  EXPECT_EQ(op.second.get().error->code, ErrorCode::closed);
  EXPECT_TRUE(mine.untouched(0));
}

TEST_P(EveryKind, StallsNameWhoIsMissing) {
  Cluster cluster(3);
  Parts mine = parts(cluster, 4);
  const std::size_t absent = mine.callers().back();
  std::vector<PendingOp> ops;
  for (const std::size_t rank : mine.callers()) {
    if (rank != absent) ops.push_back(cluster[rank].start(mine[rank].call));
  }
  const StalledOp stalled = cluster[0].stalled.get();
  const OpKey key = traits(GetParam().kind).of_two ? OpKey{4, 0, cluster[1].id, cluster[0].id} : OpKey{4, 0};
  EXPECT_EQ(stalled.key, key);
  EXPECT_EQ(stalled.missing, std::vector<PeerId>{cluster[absent].id});
  EXPECT_FALSE(cluster[0].engine->abort_if_missing(1, key, cluster[0].id));
  EXPECT_TRUE(cluster[0].engine->abort_if_missing(1, key, cluster[absent].id));
  for (const auto& [id, result] : ops) EXPECT_EQ(result.get().error->code, ErrorCode::call_mismatch);
  // Frames of a link stay in order: when this one is over the abort has come everywhere.
  ops.clear();
  for (std::size_t rank = 0; rank < 3; ++rank) {
    ops.push_back(cluster[rank].start({.kind = Collective::barrier, .tag = 6}));
  }
  for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error);
  ops.clear();
  for (const std::size_t rank : mine.callers()) ops.push_back(cluster[rank].start(mine[rank].call));
  for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error) << result.get().error->message;
}

// Every connection is cut again and again.
TEST_P(EveryKind, ResumesAfterLostConnections) {
  std::map<std::pair<PeerId, PeerId>, std::unique_ptr<FlakyProxy>> proxies;
  Cluster cluster(3, {2, 2, 2}, [&](View& view) {
    view.silence_ms = 20'000;
    for (Member& member : view.ring) {
      if (member.id == view.self) continue;
      auto& proxy = proxies[{view.self, member.id}];
      if (!proxy) proxy = std::make_unique<FlakyProxy>(member.port);
      member.port = proxy->port();
    }
  });
  for (auto& [pair, proxy] : proxies) proxy->reset_after(GetParam().count > 1000 ? 2 << 20 : 2500);
  for (int round = 0; round < 6; ++round) {
    std::vector<std::unique_ptr<Parts>> all;
    std::vector<PendingOp> ops;
    for (std::uint64_t tag = 0; tag < 3; ++tag) {
      Case of = GetParam();
      of.count += tag;
      all.push_back(std::make_unique<Parts>(cluster, of, tag));
      for (const std::size_t rank : all.back()->callers()) ops.push_back(cluster[rank].start((*all.back())[rank].call));
    }
    for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error) << result.get().error->message;
    if (GetParam().kind == Collective::all_to_all) {
      const std::vector<float>& got = (*all[2])[0].recv;
      const std::uint64_t count = GetParam().count + 2;
      for (std::uint64_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], static_cast<float>(i / count + 1));
    }
    if (GetParam().kind == Collective::reduce_scatter) {
      for (const float value : (*all[2])[0].recv) ASSERT_EQ(value, 6);
    }
    if (GetParam().kind == Collective::send) {
      for (const float value : (*all[2])[0].recv) ASSERT_EQ(value, 2);
    }
  }
  for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(cluster[rank].lost.count(), 0u);
}

// What each of two calls with one tag differs in, and how the error names it.
struct Difference {
  const char* name;
  std::function<void(CollectiveCall&)> change;
  Collective kind;
  const char* said;
};

class CallsThatDiffer : public testing::TestWithParam<Difference> {};

TEST_P(CallsThatDiffer, FailForAll) {
  Cluster cluster(3);
  Parts parts(cluster, {GetParam().kind, 9000}, 4);
  GetParam().change(parts[2].call);
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < 3; ++rank) ops.push_back(cluster[rank].start(parts[rank].call));
  for (const auto& [id, result] : ops) {
    const auto error = result.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::descriptor_mismatch);
    EXPECT_NE(error->message.find(GetParam().said), std::string::npos) << error->message;
  }
  // The tag is free, and the next call meets the others' next one.
  ops.clear();
  for (std::size_t rank = 0; rank < 3; ++rank) {
    ops.push_back(cluster[rank].start({.kind = Collective::barrier, .tag = 4}));
  }
  for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
}

const std::vector<Difference> differences = {
    {"Root", [](CollectiveCall& call) { call.peer = 3; }, Collective::broadcast, "root 3"},
    {"Count", [](CollectiveCall& call) { call.recv_count -= 1; }, Collective::broadcast, "8999"},
    {"ScatterCount", [](CollectiveCall& call) { call.recv_count -= 1; }, Collective::scatter, "8999"},
    {"Dtype", [](CollectiveCall& call) { call.dtype = DType::i32; }, Collective::gather, "i32"},
    {"Reduction", [](CollectiveCall& call) { call.op = ReduceOp::max; }, Collective::reduce_scatter, "max"},
    {"Quantized", [](CollectiveCall& call) { call.quantization.format = QuantizedFormat::i4; },
     Collective::all_reduce, "of 9000 f32 as i4 (blocks of 256)"},
    {"Kind", [](CollectiveCall& call) { call = {.kind = Collective::barrier, .tag = 4}; }, Collective::all_reduce,
     "barrier"},
    {"KindOfBlocks", [](CollectiveCall& call) { call = {.kind = Collective::barrier, .tag = 4}; },
     Collective::all_to_all, "barrier"},
    {"BlockCount",
     [](CollectiveCall& call) {
       call.send_counts = {9000, 8999, 9000};
       call.recv_counts = {9000, 9000, 9000};
       call.send_count -= 1;
     },
     Collective::all_to_all, "8999"},
};
INSTANTIATE_TEST_SUITE_P(In, CallsThatDiffer, testing::ValuesIn(differences),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(SendRecvFailures, LengthsThatDifferFailAtBothEnds) {
  Cluster cluster(3);
  for (const std::uint64_t count : {std::uint64_t{10}, std::uint64_t{100'000}}) {
    std::vector<float> sent(count), received(count + 1);
    const auto send =
        cluster[0].start({.kind = Collective::send, .send = sent.data(), .send_count = count, .peer = cluster[1].id});
    const auto recv = cluster[1].start(
        {.kind = Collective::recv, .recv = received.data(), .recv_count = count + 1, .peer = cluster[0].id});
    for (const auto& op : {send, recv}) EXPECT_EQ(op.second.get().error->code, ErrorCode::descriptor_mismatch);
  }
}

// A third member that neither sends nor receives is gone: the message arrives in spite of it, or is called again.
TEST(SendRecvFailures, VerdictsGoByTheTwoMembers) {
  Cluster cluster(3);
  std::vector<float> sent(100, 1), received(100);
  const auto send =
      cluster[0].start({.kind = Collective::send, .send = sent.data(), .send_count = 100, .peer = cluster[1].id});
  const auto reports = cluster.prepare();
  ASSERT_EQ(reports[0].size(), 1u);
  EXPECT_EQ(reports[0][0].key, (OpKey{0, 0, cluster[0].id, cluster[1].id}));
  EXPECT_EQ(reports[0][0].state, OpState::not_done);
  EXPECT_TRUE(reports[2].empty());
  cluster.await_prepared();
  cluster.install({});
  EXPECT_EQ(send.second.get().error->code, ErrorCode::peer_lost);
}

// A message to a member that the next view hasn't: there is nobody to wait for.
TEST(SendRecvFailures, APeerThatIsGoneBeforeTheOpBegins) {
  Cluster cluster(3);
  std::vector<float> data(100, 1);
  cluster.kill(2);
  const auto verdicts = Cluster::decide(cluster.prepare());
  const auto send =
      cluster[0].start({.kind = Collective::send, .send = data.data(), .send_count = 100, .peer = 3});
  const auto broadcast = cluster[1].start({.kind = Collective::broadcast, .recv = data.data() + 50, .recv_count = 50,
                                           .peer = 3});
  cluster.await_prepared();
  cluster.install(verdicts);
  for (const auto& op : {send, broadcast}) {
    const auto error = op.second.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::peer_lost);
    EXPECT_EQ(error->peer, 3u);
  }
}

}  // namespace
}  // namespace pccl::test
