// What goes over a lane in both directions once the handshake is over, little-endian: frames, each a header of 48
// bytes and, for some types, a payload. Reading never trusts the sender: what doesn't decode is a reason to end the
// link.
//
//   header   type u8, a u8, b u8, zero u8, payload_bytes u32, epoch u64, tag u64, seq u32, step u32, value u64,
//            number u64
//
//   type   a      b   epoch, tag, seq    step   value             number            payload
//   ready  dtype  op  the op             0      count             its own           none
//   data   0      0   the op             step   chunk             0                 elements
//   done   round  0   the op             0      0                 its own           none
//   abort  code   0   the op             0      origin peer       its own           a mismatch's two descriptors
//   ack    0      0   0                  0      chunks received   frames received   none
//   over   slot   0   0, version, 0      0      chunks received   its own           none
//
// Data and ack belong to the lane that they are on. The others are numbered per link and direction, from 1 on, and
// are sent again on another lane when theirs has ended (link.h).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "pccl/engine.h"

namespace pccl {

// An op within an epoch.
struct OpKey {
  std::uint64_t tag = 0;
  std::uint32_t seq = 0;
  auto operator<=>(const OpKey&) const = default;
};

struct Descriptor {
  std::uint64_t count = 0;
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;
  bool operator==(const Descriptor&) const = default;
};

// Two neighbours' calls that differ.
struct Mismatch {
  Descriptor own;  // the origin's
  PeerId other = 0;
  Descriptor others;
};

struct AbortReason {
  // cancelled, call_mismatch, or descriptor_mismatch, which has `mismatch`
  ErrorCode code = ErrorCode::cancelled;
  PeerId origin = 0;  // who withdrew it, who found the mismatch, or who waits in another call
  std::optional<Mismatch> mismatch;
};

struct ReadyBody {
  Descriptor descriptor;
};
struct DataBody {
  std::uint32_t step = 0;   // of the ring schedule
  std::uint64_t chunk = 0;  // of the step's slice
  std::uint32_t bytes = 0;
};
struct DoneBody {
  std::uint32_t round = 0;
};
struct AbortBody {
  AbortReason reason;
};
// What its sender has received so far: whole data frames on this lane, numbered frames on the link.
struct AckBody {
  std::uint64_t chunks = 0;
  std::uint64_t frames = 0;
};
// A lane has ended, and its sender had received this many whole data frames on it.
struct OverBody {
  std::uint32_t slot = 0;
  std::uint64_t version = 0;
  std::uint64_t chunks = 0;
};

struct Frame {
  Epoch epoch = 0;
  OpKey key;
  std::variant<ReadyBody, DataBody, DoneBody, AbortBody, AckBody, OverBody> body;
  std::uint64_t number = 0;
};

// One chunk of an op, whose header and place follow from this.
struct ChunkId {
  Epoch epoch = 0;
  OpKey key;
  DataBody body;
};

inline constexpr std::size_t header_bytes = 48;
// Of the frames that are read as a whole, all but data.
inline constexpr std::size_t control_payload_bytes_max = 40;
using Header = std::array<std::uint8_t, header_bytes>;

// For data: the header alone. Otherwise the whole frame.
void append_frame(const Frame& frame, std::vector<std::uint8_t>& to);
Header data_header(const ChunkId& chunk);

// Bytes of payload behind this header; nothing, with the reason in `error`, for a header that no peer should send.
std::optional<std::uint32_t> payload_bytes(std::span<const std::uint8_t, header_bytes> header, std::string& error);
// `payload` has the size that payload_bytes gave, or is empty for data.
std::optional<Frame> decode_frame(std::span<const std::uint8_t, header_bytes> header,
                                  std::span<const std::uint8_t> payload, std::string& error);

}  // namespace pccl
