// All-reduces that fail: mismatched calls, cancels, lost peers, verdicts, close. Inputs must come back bit for bit,
// and all members of an op must see the same outcome.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "cluster.h"
#include "fake_peer.h"

namespace pccl::test {
namespace {

std::vector<float> random_floats(std::uint64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  // Any bits, NaNs with payloads among them: what is restored must be the same bytes, not the same numbers.
  for (float& value : values) value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
  return values;
}

bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

AllReduce in_place(std::vector<float>& data, std::uint64_t tag, ReduceOp op = ReduceOp::sum) {
  return {data.data(), data.data(), data.size(), DType::f32, op, tag};
}

TEST(Mismatch, EveryMemberHearsWhoCalledWhat) {
  Cluster cluster(4);
  std::vector<std::vector<float>> data;
  for (std::size_t rank = 0; rank < 4; ++rank) data.push_back(random_floats(rank == 2 ? 70'000 : 70'001, 1));
  const auto before = data;
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < 4; ++rank) ops.push_back(cluster[rank].all_reduce(in_place(data[rank], 5)));
  for (const auto& [id, result] : ops) {
    const auto error = result.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::descriptor_mismatch);
    for (const char* part : {"tag 5", "peer 3", "70000", "70001", "sum"}) {
      EXPECT_NE(error->message.find(part), std::string::npos) << error->message;
    }
  }
  for (std::size_t rank = 0; rank < 4; ++rank) EXPECT_TRUE(same_bytes(data[rank], before[rank]));

  // The tag is free, and the next op with it is another one.
  for (std::size_t rank = 0; rank < 4; ++rank) {
    data[rank].assign(10, 1.0f);
    ops[rank] = cluster[rank].all_reduce(in_place(data[rank], 5));
  }
  for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
  EXPECT_EQ(data[3], std::vector<float>(10, 4.0f));
}

TEST(Mismatch, OfReductionAndOfElement) {
  Cluster cluster(2);
  std::vector<float> a(4), b(4);
  const auto sum = cluster[0].all_reduce(in_place(a, 1, ReduceOp::sum));
  const auto max = cluster[1].all_reduce(in_place(b, 1, ReduceOp::max));
  EXPECT_EQ(sum.second.get().error->code, ErrorCode::descriptor_mismatch);
  EXPECT_EQ(max.second.get().error->code, ErrorCode::descriptor_mismatch);
  const auto floats = cluster[0].all_reduce({a.data(), a.data(), 4, DType::f32, ReduceOp::sum, 1});
  const auto integers = cluster[1].all_reduce({b.data(), b.data(), 4, DType::i32, ReduceOp::sum, 1});
  EXPECT_EQ(floats.second.get().error->code, ErrorCode::descriptor_mismatch);
  EXPECT_EQ(integers.second.get().error->code, ErrorCode::descriptor_mismatch);
}

// Two of three have begun, so part of the input is overwritten when one of them withdraws. The third one posts the
// op later and hears of it at once.
TEST(Cancel, ReachesEveryMemberEvenThoseThatComeLater) {
  Cluster cluster(5);
  std::vector<std::vector<float>> data;
  for (unsigned rank = 0; rank < 5; ++rank) data.push_back(random_floats(500'000, rank));
  const auto before = data;
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < 4; ++rank) ops.push_back(cluster[rank].all_reduce(in_place(data[rank], 8)));
  EXPECT_TRUE(cluster[2].engine->cancel(ops[2].first));
  EXPECT_FALSE(cluster[2].engine->cancel(ops[2].first));
  for (const auto& [id, result] : ops) ASSERT_TRUE(result.get().error);
  ops.push_back(cluster[4].all_reduce(in_place(data[4], 8)));
  for (const auto& [id, result] : ops) {
    const auto error = result.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::cancelled);
    EXPECT_EQ(error->peer, cluster[2].id);
  }
  for (std::size_t rank = 0; rank < 5; ++rank) EXPECT_TRUE(same_bytes(data[rank], before[rank]));
}

TEST(Stall, IsToldAndCanBeEnded) {
  Cluster cluster(4);
  std::vector<std::vector<float>> data(4, random_floats(10'000, 1));  // on the ring, where neighbours know of each other
  const auto before = data;
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < 3; ++rank) ops.push_back(cluster[rank].all_reduce(in_place(data[rank], 5)));
  // On one host everybody waits for everybody.
  for (const std::size_t rank : {0, 1, 2}) {
    const StalledOp stalled = cluster[rank].stalled.get();
    EXPECT_EQ(stalled.epoch, 1u);
    EXPECT_EQ(stalled.key, (OpKey{5, 0}));
    EXPECT_EQ(stalled.missing, std::vector<PeerId>{4});
  }
  const auto abort = [&](std::size_t rank, Epoch epoch, std::uint64_t tag, std::uint32_t seq, PeerId peer) {
    return cluster[rank].engine->abort_if_missing(epoch, {tag, seq}, peer);
  };
  EXPECT_FALSE(abort(0, 2, 5, 0, 4));
  EXPECT_FALSE(abort(0, 1, 6, 0, 4));
  EXPECT_FALSE(abort(0, 1, 5, 1, 4));
  EXPECT_FALSE(abort(0, 1, 5, 0, 2));  // has called it
  EXPECT_FALSE(abort(3, 1, 5, 0, 4));  // not in flight there
  EXPECT_TRUE(abort(2, 1, 5, 0, 4));
  for (std::size_t rank = 0; rank < 3; ++rank) {
    const auto error = ops[rank].second.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::call_mismatch);
    EXPECT_EQ(error->peer, 4u);
    EXPECT_EQ(error->epoch, 1u);
    EXPECT_NE(error->message.find("peer 4 waits in another call"), std::string::npos) << error->message;
    EXPECT_TRUE(same_bytes(data[rank], before[rank]));
    EXPECT_EQ(cluster[rank].stalled.count(), 1u);
  }
  // The peer that waited elsewhere has heard it there: its next call meets the others' next one. The op with another
  // tag is over when the abort has come everywhere, since frames of a link stay in order.
  for (const std::uint64_t tag : {6, 5}) {
    ops.clear();
    for (std::size_t rank = 4; rank-- > 0;) ops.push_back(cluster[rank].all_reduce(in_place(data[rank], tag)));
    for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
    EXPECT_TRUE(same_bytes(data[0], data[3]));
  }
}

TEST(Cancel, TellsItsCallerWhoHadNotCalled) {
  Cluster cluster(3);
  std::vector<float> a(10), b(10), c(10);
  const auto first = cluster[0].all_reduce(in_place(a, 0));
  EXPECT_TRUE(cluster[0].engine->cancel(first.first));
  const std::string message = first.second.get().error->message;
  EXPECT_NE(message.find("not called yet by peer 2 and peer 3"), std::string::npos) << message;
  const auto second = cluster[1].all_reduce(in_place(b, 0));
  EXPECT_EQ(second.second.get().error->message.find("not called yet"), std::string::npos);
}

TEST(Cancel, TooLateForAnOpThatIsOver) {
  Cluster cluster(2);
  std::vector<float> a(100, 1), b(100, 2);
  const auto first = cluster[0].all_reduce(in_place(a, 0));
  const auto second = cluster[1].all_reduce(in_place(b, 0));
  ASSERT_FALSE(first.second.get().error);
  ASSERT_FALSE(second.second.get().error);
  EXPECT_FALSE(cluster[0].engine->cancel(first.first));
  EXPECT_FALSE(cluster[0].engine->cancel(12345));
}

// Cancels race with completion: whatever happens, it happens to all.
TEST(Cancel, SameOutcomeForAllAtAnyMoment) {
  Cluster cluster(3);
  std::mt19937 random(3);
  int cancelled = 0;
  for (int repeat = 0; repeat < 60; ++repeat) {
    std::vector<std::vector<float>> data(3, std::vector<float>(100'000, 1));
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < 3; ++rank) ops.push_back(cluster[rank].all_reduce(in_place(data[rank], 1)));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 1500));
    const bool accepted = cluster[1].engine->cancel(ops[1].first);
    cancelled += accepted;
    for (std::size_t rank = 0; rank < 3; ++rank) {
      const auto error = ops[rank].second.get().error;
      ASSERT_EQ(error.has_value(), accepted);
      ASSERT_EQ(data[rank], std::vector<float>(100'000, accepted ? 1.0f : 3.0f));
    }
  }
  RecordProperty("cancelled", cancelled);
}

// One engine and a fake peer at rank 1. The op has two slices; rank 0 first receives slice 1, then slice 0.
class WithFakePeer : public testing::Test {
 protected:
  static constexpr std::uint64_t count = 64 * 1024;
  static constexpr OpKey key{7, 0};
  static constexpr std::uint32_t slice_bytes = count / 2 * sizeof(float);

  WithFakePeer() {
    engine_->set_control({
        .prepared = [this](Epoch, const std::vector<LinkFailure>& failures) { prepared_.set(failures); },
        .link_lost =
            [this](Epoch epoch, PeerId peer, const std::string& reason) {
              lost_.set({epoch, peer, reason});
            },
    });
    prepare(1, true);
    fake_.accept_link();
    EXPECT_TRUE(prepared_.get().empty());
    engine_->install(1, {});
    data_ = before_ = random_floats(count, 4);
  }

  std::vector<OpReport> prepare(Epoch epoch, bool with_fake) {
    View view{.epoch = epoch,
              .view_epoch = epoch,
              .self = 1,
              .key = test_key,
              .ring = {{1, "127.0.0.1", engine_->port()}},
              .world_size = 2,
              .silence_ms = 1000};
    if (with_fake) view.ring.push_back(fake_.member());
    return engine_->prepare(view, 30'000);
  }

  PendingOp post(std::uint64_t tag = 7) { return post(data_, tag); }
  PendingOp post(std::vector<float>& data, std::uint64_t tag) {
    Awaited<OpResult> result;
    const AllReduce call{data.data(), data.data(), count, DType::f32, ReduceOp::max, tag};
    return {engine_->start(call.call(), [result](OpId, const OpResult& value) { result.set(value); }), result};
  }

  // Plays the op up to where the engine has overwritten slice 1 and sent it on.
  void play_first_half() {
    EXPECT_TRUE(std::holds_alternative<ReadyBody>(fake_.receive().body));
    fake_.send({1, key, ReadyBody{{count, DType::f32, ReduceOp::max}}});
    fake_.send_data(1, key, {0, 0, slice_bytes}, contribution_.data());
    EXPECT_EQ(std::get<DataBody>(fake_.receive().body).step, 0u);
    EXPECT_EQ(std::get<DataBody>(fake_.receive().body).step, 1u);
  }

  FakePeer fake_{2};
  Awaited<std::vector<LinkFailure>> prepared_;
  Awaited<Lost> lost_;
  std::vector<float> data_, before_;
  std::vector<float> contribution_ = std::vector<float>(count / 2, 3e38f);
  std::shared_ptr<Engine> engine_ = Engine::create({});  // goes first: it uses the rest
};

TEST_F(WithFakePeer, LossInTheMiddleRestoresTheInputAndARetryWorks) {
  const auto op = post();
  play_first_half();
  fake_.hang_up();
  const Lost lost = lost_.get();
  EXPECT_EQ(lost.epoch, 1u);
  EXPECT_EQ(lost.peer, 2u);
  EXPECT_EQ(op.second.count(), 0u);  // frozen where it is until the coordinator has decided

  const auto reports = prepare(2, false);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].key, key);
  EXPECT_EQ(reports[0].state, OpState::not_done);
  engine_->install(2, {{key, false}});
  const auto error = op.second.get().error;
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::peer_lost);
  EXPECT_EQ(error->peer, 2u);
  EXPECT_TRUE(same_bytes(data_, before_));
  EXPECT_EQ(lost_.count(), 1u);

  const auto retry = post();
  EXPECT_FALSE(retry.second.get().error);
  EXPECT_EQ(retry.second.get().world_size, 1u);
}

// The engine is done, and the others' word doesn't come: only a verdict can end the op.
TEST_F(WithFakePeer, AVerdictCommitsWhatIsDone) {
  const auto op = post();
  play_first_half();
  fake_.send_data(1, key, {1, 0, slice_bytes}, contribution_.data());
  EXPECT_EQ(std::get<DoneBody>(fake_.receive().body).round, 0u);
  EXPECT_FALSE(engine_->cancel(op.first));
  fake_.hang_up();
  lost_.get();
  for (Epoch epoch = 2; epoch <= 3; ++epoch) {  // asked twice, it says the same
    const auto reports = prepare(epoch, false);
    ASSERT_EQ(reports.size(), 1u);
    EXPECT_EQ(reports[0].state, OpState::done);
  }
  engine_->install(3, {{key, true}});
  EXPECT_FALSE(op.second.get().error);
  EXPECT_EQ(data_[0], 3e38f);
}

TEST_F(WithFakePeer, AVerdictAbortsWhatIsDone) {
  const auto op = post();
  play_first_half();
  fake_.send_data(1, key, {1, 0, slice_bytes}, contribution_.data());
  EXPECT_EQ(std::get<DoneBody>(fake_.receive().body).round, 0u);
  prepare(2, false);
  // Too late for the word that would have committed it.
  fake_.send({1, key, DoneBody{0}});
  engine_->install(2, {});
  EXPECT_EQ(op.second.get().error->code, ErrorCode::peer_lost);
  EXPECT_TRUE(same_bytes(data_, before_));
}

// The freeze comes while a chunk is half there; the rest of it must not reach the caller's memory.
TEST_F(WithFakePeer, FreezeInTheMiddleOfAChunk) {
  const auto op = post();
  play_first_half();
  const Header header = data_header({1, key, {1, 0, slice_bytes}});
  std::vector<std::uint8_t> bytes(header_bytes + slice_bytes / 2, 0xAA);
  std::copy(header.begin(), header.end(), bytes.begin());
  fake_.send_raw(bytes, true);
  // Each question takes the I/O thread around once, so that it has read the bytes.
  for (int i = 0; i < 3; ++i) engine_->cancel(0);
  prepare(2, true);
  fake_.send_raw(std::vector<std::uint8_t>(slice_bytes / 2, 0xAA));
  engine_->install(2, {});
  EXPECT_EQ(op.second.get().error->code, ErrorCode::peer_lost);
  EXPECT_TRUE(same_bytes(data_, before_));

  // The link has been kept, and what follows on it is understood.
  const auto next = post(9);
  Frame frame = fake_.receive();
  while (frame.epoch != 2) frame = fake_.receive();
  EXPECT_EQ(frame.key, (OpKey{9, 0}));
  engine_->cancel(next.first);
  EXPECT_TRUE(same_bytes(data_, before_));
}

TEST_F(WithFakePeer, OpsPostedWhileFrozenStartInTheNextEpoch) {
  prepare(2, true);
  const auto cancelled = post(7);
  EXPECT_TRUE(engine_->cancel(cancelled.first));
  EXPECT_EQ(cancelled.second.get().error->code, ErrorCode::cancelled);
  const auto waiting = post(7);
  engine_->install(2, {});
  // The one that was withdrawn took the first number.
  Frame frame = fake_.receive();
  EXPECT_EQ(frame.epoch, 2u);
  EXPECT_EQ(frame.key, (OpKey{7, 0}));
  EXPECT_TRUE(std::holds_alternative<AbortBody>(frame.body));
  frame = fake_.receive();
  EXPECT_EQ(frame.key, (OpKey{7, 1}));
  EXPECT_TRUE(std::holds_alternative<ReadyBody>(frame.body));
  engine_->close();
  EXPECT_EQ(waiting.second.get().error->code, ErrorCode::closed);
  EXPECT_TRUE(same_bytes(data_, before_));
}

// The other member has installed the view, and begun, before this one.
TEST_F(WithFakePeer, FramesOfAPreparedEpochAreRemembered) {
  prepare(2, true);
  fake_.send({2, key, ReadyBody{{count, DType::f32, ReduceOp::max}}});
  fake_.send({2, {8, 0}, AbortBody{{ErrorCode::cancelled, 2, {}}}});
  engine_->install(2, {});
  const auto op = post(7);
  std::vector<float> other(count);
  const auto aborted = post(other, 8);
  EXPECT_EQ(aborted.second.get().error->code, ErrorCode::cancelled);
  bool data = false;  // comes although no other Ready is sent
  while (!data) {
    const Frame frame = fake_.receive();
    data = std::holds_alternative<DataBody>(frame.body);
  }
  engine_->close();
  EXPECT_EQ(op.second.get().error->code, ErrorCode::closed);
}

TEST_F(WithFakePeer, CloseRestoresTheInput) {
  const auto op = post();
  play_first_half();
  engine_->close();
  EXPECT_EQ(op.second.get().error->code, ErrorCode::closed);
  EXPECT_TRUE(same_bytes(data_, before_));
  EXPECT_THROW(post(), EngineError);
  EXPECT_THROW(prepare(2, false), EngineError);
  EXPECT_FALSE(engine_->cancel(op.first));
  engine_->close();
}

// A chunk is half sent when the op ends, and the rest has to follow: from a copy, because the caller's memory is the
// caller's again.
TEST_F(WithFakePeer, WhatIsHalfSentIsFinishedFromACopy) {
  constexpr std::uint64_t big_count = 8 << 20;
  std::vector<float> big = random_floats(big_count, 5);
  const auto before = big;
  Awaited<OpResult> result;
  const AllReduce call{big.data(), big.data(), big_count, DType::f32, ReduceOp::max, 7};
  engine_->start(call.call(), [result](OpId, const OpResult& value) { result.set(value); });
  fake_.send({1, key, ReadyBody{{big_count, DType::f32, ReduceOp::max}}});
  // Step 0 sends slice 0, chunk by chunk.
  std::uint64_t received = 0;
  const auto check = [&](const Frame& frame) {
    const auto* data = std::get_if<DataBody>(&frame.body);
    if (data == nullptr) return;
    ASSERT_EQ(data->step, 0u);
    ASSERT_EQ(std::memcmp(fake_.payload.data(), reinterpret_cast<const char*>(before.data()) + received, data->bytes),
              0);
    received += data->bytes;
  };
  while (received == 0) check(fake_.receive());
  // Each question takes the I/O thread around once: until the fake peer's window is full.
  for (int i = 0; i < 200; ++i) engine_->cancel(0);
  prepare(2, true);
  engine_->install(2, {});
  ASSERT_EQ(result.get().error->code, ErrorCode::peer_lost);
  EXPECT_TRUE(same_bytes(big, before));
  big.assign(big_count, 0);
  const auto marker = post(99);

  for (Frame frame = fake_.receive(); frame.key.tag != 99; frame = fake_.receive()) check(frame);
  EXPECT_LT(received, big_count * sizeof(float) / 2);
}

// The link breaks when everybody has said that the view can be installed.
TEST_F(WithFakePeer, LossBetweenPrepareAndInstallIsToldInTheNewEpoch) {
  prepare(2, true);
  fake_.hang_up();
  engine_->install(2, {});
  const Lost lost = lost_.get();
  EXPECT_EQ(lost.epoch, 2u);
  EXPECT_EQ(lost.peer, 2u);
}

// Each is something that no correct peer sends: the link is dropped with a reason, the op waits for the verdict.
class BadPeer : public WithFakePeer, public testing::WithParamInterface<int> {};

TEST_P(BadPeer, LosesItsLink) {
  const auto op = post();
  ASSERT_TRUE(std::holds_alternative<ReadyBody>(fake_.receive().body));
  const ReadyBody ready{{count, DType::f32, ReduceOp::max}};
  const std::vector<std::uint8_t> chunk(slice_bytes);
  switch (GetParam()) {
    case 0:
      fake_.send_raw(std::vector<std::uint8_t>(200, 0xFF));
      break;
    case 1:
      fake_.send_data(1, key, {1, 0, slice_bytes}, chunk.data());
      break;  // a final value before the engine has sent anything of it
    case 2:
      fake_.send({1, key, ready}), fake_.send({1, key, ready});
      break;
    case 3:
      fake_.send({1, key, ready}), fake_.send_data(1, key, {0, 1, slice_bytes}, chunk.data());
      break;
    case 4:
      fake_.send({1, key, ready}), fake_.send_data(1, key, {0, 0, slice_bytes - 4}, chunk.data());
      break;
    case 5:
      fake_.send({1, key, ready}), fake_.send_data(1, {9, 0}, {0, 0, slice_bytes}, chunk.data());
      break;
    case 6:
      fake_.send({9, key, ready});
      break;  // an epoch that nobody has prepared
    case 7:
      fake_.send({1, key, DoneBody{3}});
      break;
    case 8:
      for (std::uint32_t i = 0; i < 5000; ++i) fake_.send({1, {1000, i}, DoneBody{0}});
      break;
  }
  const Lost lost = lost_.get();
  EXPECT_EQ(lost.peer, 2u);
  EXPECT_FALSE(lost.reason.empty());
  EXPECT_EQ(op.second.count(), 0u);
  prepare(2, false);
  engine_->install(2, {});
  EXPECT_EQ(op.second.get().error->code, ErrorCode::peer_lost);
  EXPECT_TRUE(same_bytes(data_, before_));
}

INSTANTIATE_TEST_SUITE_P(Kinds, BadPeer, testing::Range(0, 9));

// Calls until it commits, as a training loop would. Returns the size of the group that it committed in; 0: closed.
std::uint32_t call_until_committed(Peer& peer, std::uint64_t count, std::uint64_t tag) {
  std::vector<float> data(count, 1.0f);
  for (;;) {
    OpResult result;
    try {
      result = peer.all_reduce(in_place(data, tag)).second.get();
    } catch (const EngineError& error) {
      EXPECT_EQ(error.error().code, ErrorCode::closed) << error.what();
      return 0;
    }
    EXPECT_EQ(data, std::vector<float>(count, result.error ? 1.0f : static_cast<float>(result.world_size)));
    if (!result.error) return result.world_size;
    if (result.error->code == ErrorCode::closed) return 0;
    EXPECT_EQ(result.error->code, ErrorCode::peer_lost) << result.error->message;
  }
}

// Peers run ops without pause while one after the other is killed. Survivors must agree on which op was the first
// of the smaller group, and go on.
TEST(PeerLoss, SurvivorsAgreeAndGoOn) {
  Cluster cluster(5);
  std::mt19937 random(11);
  while (cluster.size() > 1) {
    const std::size_t members = cluster.size();
    // Per peer and tag: how many ops committed before the first one in the smaller group.
    std::vector<std::array<int, 2>> committed(members, {0, 0});
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < members; ++rank) {
      for (std::uint64_t tag = 0; tag < 2; ++tag) {
        threads.emplace_back([&peer = cluster[rank], &number = committed[rank][tag], tag, members] {
          while (call_until_committed(peer, tag == 0 ? 150'000 : 1000, tag) == members) ++number;
        });
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + random() % 20'000));
    const std::size_t dead = random() % members;
    cluster[dead].engine->close();
    threads[2 * dead].join();
    threads[2 * dead + 1].join();
    cluster.kill(dead);
    cluster.next_view();
    for (std::thread& thread : threads) {
      if (thread.joinable()) thread.join();
    }
    committed.erase(committed.begin() + static_cast<std::ptrdiff_t>(dead));
    for (const auto& numbers : committed) EXPECT_EQ(numbers, committed[0]);
  }
}

}  // namespace
}  // namespace pccl::test
