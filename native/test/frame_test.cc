// The frame parser: what is written is read back the same; what is changed, cut or invented is refused with a reason
// or read as a valid frame, and never more than that. Meant to be run under the sanitizers too.
#include "transport/frame.h"

#include <gtest/gtest.h>

#include <random>

#include "base/dtype.h"
#include "base/limits.h"
#include "state/state_wire.h"
#include "transport/handshake.h"

namespace pccl {
namespace {

// Reads bytes the way a link does. Gives nothing, with the reason, for those that are refused.
std::optional<Frame> read(const std::vector<std::uint8_t>& bytes, std::string& error) {
  if (bytes.size() < header_bytes) return std::nullopt;
  const std::span<const std::uint8_t, header_bytes> header(bytes.data(), header_bytes);
  const auto payload = payload_bytes(header, error);
  if (!payload) return std::nullopt;
  EXPECT_LE(*payload, limits::chunk_bytes);
  const bool data = is_data(header);
  if (!data) {
    EXPECT_LE(*payload, control_payload_bytes_max);
  }
  if (!data && bytes.size() < header_bytes + *payload) return std::nullopt;
  return decode_frame(header, std::span(bytes).subspan(header_bytes, data ? 0 : *payload), error);
}

std::vector<std::uint8_t> write(const Frame& frame) {
  std::vector<std::uint8_t> bytes;
  append_frame(frame, bytes);
  return bytes;
}

const Descriptor descriptor{1'000'000'007, DType::f64, ReduceOp::min};
const Descriptor rooted{5, DType::i32, ReduceOp::sum, Collective::scatter, 99};
const Mismatch mismatch{descriptor, 77, rooted};

Payload payload_of(std::size_t bytes) { return std::make_shared<const std::vector<std::uint8_t>>(bytes, 7); }

std::vector<Frame> samples() {
  return {
      {1, {2, 3}, ReadyBody{descriptor}, 1},
      {1, {2, 3}, ReadyBody{rooted, payload_of(40)}, 1},
      {1, {2, 3}, ReadyBody{{0, DType::f32, ReduceOp::sum, Collective::barrier}}, 1},
      {1, {2, 3, 4, 5}, ReadyBody{{9, DType::bf16, ReduceOp::sum, Collective::send}}, 1},
      {1, {2, 3, 4, 5}, StepBody{6, UINT64_MAX}, 9},
      {5, {0, 0}, DoneBody{DoneBody::to_all}, 8},
      {UINT64_MAX, {UINT64_MAX, UINT32_MAX}, DataBody{9, 123456789, limits::chunk_bytes}},
      {5, {0, 0}, DoneBody{15}, UINT64_MAX},
      {6, {1, 1}, AbortBody{{ErrorCode::cancelled, 42, {}}}, 2},
      {6, {1, 1}, AbortBody{{ErrorCode::descriptor_mismatch, 42, mismatch}}, 3},
      {6, {1, 1}, AbortBody{{ErrorCode::call_mismatch, 42, {}}}, 4},
      {6, {1, 1}, AbortBody{{ErrorCode::peer_lost, 42, {}}}, 5},
      {0, {}, AckBody{7, UINT64_MAX}},
      {0, {}, OverBody{63, UINT64_MAX, 9}, 5},
      {0, {}, LanesBody{64}, 6},
  };
}

TEST(Frame, ReadsWhatWasWritten) {
  for (const Frame& frame : samples()) {
    std::string error;
    const auto bytes = write(frame);
    const auto again = read(bytes, error);
    ASSERT_TRUE(again) << error;
    EXPECT_EQ(again->epoch, frame.epoch);
    EXPECT_EQ(again->key, frame.key);
    EXPECT_EQ(again->number, frame.number);
    EXPECT_EQ(again->body.index(), frame.body.index());
    EXPECT_EQ(write(*again), bytes);
  }
  std::string error;
  const Frame aborted{6, {1, 1}, AbortBody{{ErrorCode::descriptor_mismatch, 42, mismatch}}, 3};
  const auto abort = std::get<AbortBody>(read(write(aborted), error)->body).reason;
  EXPECT_EQ(abort.origin, 42u);
  EXPECT_EQ(abort.mismatch->other, 77u);
  EXPECT_EQ(abort.mismatch->own, descriptor);
  EXPECT_EQ(abort.mismatch->others, mismatch.others);
  const Frame full{1, {2, 3}, ReadyBody{descriptor, payload_of(limits::ready_payload_bytes_max)}, 1};
  EXPECT_EQ(std::get<ReadyBody>(read(write(full), error)->body).payload->size(), limits::ready_payload_bytes_max);
}

TEST(Frame, RefusesValuesOutOfRange) {
  const std::vector<Frame> wrong = {
      {1, {2, 3}, ReadyBody{{0, DType::f32, ReduceOp::sum}}, 1},
      {1, {2, 3}, ReadyBody{{UINT64_MAX, DType::f32, ReduceOp::sum}}, 1},
      {1, {2, 3}, ReadyBody{{1, static_cast<DType>(dtypes.size()), ReduceOp::sum}}, 1},
      {1, {2, 3}, ReadyBody{{1, DType::f32, static_cast<ReduceOp>(reduce_op_names.size())}}, 1},
      {1, {2, 3}, ReadyBody{{1, DType::f32, ReduceOp::sum, static_cast<Collective>(10)}}, 1},
      {1, {2, 3}, ReadyBody{{1, DType::f32, ReduceOp::sum, Collective::recv}}, 1},
      {1, {2, 3}, ReadyBody{{1, DType::f32, ReduceOp::sum, Collective::all_gather, 4}}, 1},
      {1, {2, 3}, ReadyBody{{1, DType::f32, ReduceOp::max, Collective::gather, 4}}, 1},
      {1, {2, 3}, ReadyBody{descriptor, payload_of(limits::ready_payload_bytes_max + 1)}, 1},
      {1, {2, 3}, StepBody{1, 2}},
      {1, {2, 3, 4, 4}, StepBody{1, 2}, 1},
      {1, {2, 3}, DataBody{0, 0, 0}},
      {1, {2, 3}, DataBody{0, 0, limits::chunk_bytes + 1}},
      {1, {2, 3}, DataBody{0, 0, 4}, 1},
      {1, {2, 3}, DoneBody{33}, 1},
      {1, {2, 3}, DoneBody{0}},
      {1, {0, 0}, AckBody{}},
      {0, {0, 0, 1, 2}, AckBody{}},
      {0, {0, 1}, AckBody{}},
      {0, {}, OverBody{64, 1, 1}, 1},
      {1, {}, OverBody{0, 1, 1}, 1},
      {0, {}, OverBody{0, 1, 1}},
      {0, {}, LanesBody{0}, 1},
      {0, {}, LanesBody{65}, 1},
      {0, {}, LanesBody{1}},
      {1, {}, LanesBody{1}, 1},
  };
  for (const Frame& frame : wrong) {
    std::string error;
    EXPECT_FALSE(read(write(frame), error));
    EXPECT_FALSE(error.empty());
  }
}

// A frame is its bytes: any that is read from mutated or random ones is written as exactly those.
TEST(Frame, SurvivesAnyBytes) {
  std::mt19937_64 random(2026);
  const auto frames = samples();
  int accepted = 0;
  for (int i = 0; i < 300'000; ++i) {
    std::vector<std::uint8_t> bytes;
    if (i % 4 == 0) {
      bytes.resize(random() % 120);
      for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
      if (!bytes.empty()) bytes[0] = static_cast<std::uint8_t>(random() % 9);
    } else {
      bytes = write(frames[random() % frames.size()]);
      for (std::uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
        bytes[random() % bytes.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
      }
      if (random() % 8 == 0) bytes.resize(random() % (bytes.size() + 1));
    }
    std::string error;
    const auto frame = read(bytes, error);
    if (!frame) continue;
    ++accepted;
    const auto again = write(*frame);
    ASSERT_LE(again.size(), bytes.size());
    bytes.resize(again.size());
    ASSERT_EQ(again, bytes);
  }
  EXPECT_GT(accepted, 1000);
}

const Hello link_hello{ConnectionKind::link, 5, 6, 7, {1, 2, 3}, {4, 1}, 8, 63, 9};

TEST(Handshake, ReadsWhatWasWrittenAndNothingElse) {
  for (const Hello& hello : {link_hello, Hello{ConnectionKind::state, 5, 6, 7, {1, 2, 3}}}) {
    auto bytes = encode_hello(hello);
    const auto again = decode_hello(bytes);
    ASSERT_TRUE(again);
    EXPECT_EQ(encode_hello(*again), bytes);
    for (const std::size_t at : {0, 7, 8, 12, 15, 76}) {
      bytes = encode_hello(hello);
      bytes[at] ^= 0x40;
      EXPECT_FALSE(decode_hello(bytes)) << at;
    }
  }
  std::vector<Hello> wrong(5, link_hello);
  wrong[0].lanes = 65;
  wrong[1].slot = 64;
  wrong[2].incarnation = 0;
  wrong[3].kind = ConnectionKind::state;
  wrong[4].to = wrong[4].from;
  for (const Hello& hello : wrong) EXPECT_FALSE(decode_hello(encode_hello(hello)));

  const Welcome welcome{Welcome::Status::gone, {3, 4}, 5};
  auto bytes = encode_welcome(welcome);
  const auto again = decode_welcome(bytes);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->status, welcome.status);
  EXPECT_EQ(again->link, welcome.link);
  EXPECT_EQ(again->lanes, 5u);
  for (const std::size_t at : {0, 8, 12, 28}) {
    bytes = encode_welcome(welcome);
    bytes[at] ^= 0x50;
    EXPECT_FALSE(decode_welcome(bytes)) << at;
  }
}

// Both sides order the connections of a slot alike.
TEST(Handshake, LaterConnectionsAreGreater) {
  Hello back = link_hello;
  std::swap(back.from, back.to);
  EXPECT_GT(link_hello.lane_version(), back.lane_version());
  ++back.incarnation;
  EXPECT_LT(link_hello.lane_version(), back.lane_version());
}

TEST(Handshake, SurvivesAnyBytes) {
  std::mt19937_64 random(3);
  int accepted = 0;
  for (int i = 0; i < 100'000; ++i) {
    auto bytes = encode_hello(link_hello);
    for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      bytes[random() % bytes.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
    }
    const auto hello = decode_hello(bytes);
    if (!hello) continue;
    ++accepted;
    ASSERT_EQ(encode_hello(*hello), bytes);
  }
  EXPECT_GT(accepted, 1000);
}

TEST(StateWire, SurvivesAnyBytes) {
  using state_wire::Kind;
  std::mt19937_64 random(5);
  int accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    const auto kind = static_cast<Kind>(1 + random() % 6);
    const std::uint64_t tensor = std::uint64_t{3} * limits::state_leaf_bytes + 7;
    auto bytes = state_wire::encode_request({kind, kind == Kind::lend ? 0u : 1u, 0, tensor, {9, 8, 7}});
    for (std::uint64_t flips = random() % 3; flips > 0; --flips) {
      bytes[random() % bytes.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
    }
    const auto request = state_wire::decode_request(bytes);
    if (!request) continue;
    ++accepted;
    ASSERT_EQ(state_wire::encode_request(*request), bytes);
    // Whatever passes lies within the tensor, and its answer is bounded.
    ASSERT_LE(request->first + request->count, leaf_count(request->bytes));
    ASSERT_LE(request->answer_bytes(), limits::state_request_hashes_max * sizeof(Hash128));
  }
  EXPECT_GT(accepted, 50'000);
}

TEST(StateWire, AnAnswerMustFitItsQuestion) {
  using state_wire::Status;
  const state_wire::Request request{state_wire::Kind::data, 2, 1, 3 * limits::state_leaf_bytes, {}};
  const std::uint64_t right = 2 * limits::state_leaf_bytes;
  EXPECT_TRUE(state_wire::decode_reply(state_wire::encode_reply({Status::found, right}), request));
  EXPECT_TRUE(state_wire::decode_reply(state_wire::encode_reply({Status::unknown, 0}), request));
  EXPECT_FALSE(state_wire::decode_reply(state_wire::encode_reply({Status::found, right + 1}), request));
  EXPECT_FALSE(state_wire::decode_reply(state_wire::encode_reply({Status::unknown, right}), request));
  EXPECT_FALSE(state_wire::decode_reply(state_wire::encode_reply({static_cast<Status>(2), 0}), request));
}

}  // namespace
}  // namespace pccl
