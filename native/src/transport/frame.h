// What goes over a lane in both directions once the handshake is over, little-endian: frames, each a header of 64
// bytes and, for some types, a payload. Reading never trusts the sender: what doesn't decode is a reason to end the
// link.
//
//   header   type u8, a u8, zero u8[2], payload_bytes u32, epoch u64, tag u64, from u64, to u64, seq u32, step u32,
//            value u64, number u64
//
//   type   a      epoch, tag, from, to, seq  step   value             number            payload
//   ready  0      the op                     0      0                 its own           descriptor, the op's own
//   data   0      the op                     step   chunk             0                 elements
//   step   0      the op                     step   value             its own           none
//   done   round  the op                     0      0                 its own           none
//   abort  code   the op                     0      origin peer       its own           a mismatch: two descriptors
//   ack    0      0                          0      chunks received   frames received   none
//   over   slot   0, version, 0, 0, 0        0      chunks received   its own           none
//   lanes  count  0                          0      0                 its own           none
//
//   descriptor   count u64, root u64, kind u8, dtype u8, op u8, quantized format u8, its options u8, log2 of its block
//                u8, zero u8[2]; the options are bit 0 zero_point, bit 1 stochastic, bit 2 pass_non_finite
//   a mismatch   the origin's descriptor, other peer u64, the other's descriptor
//
// `from` and `to` are those of an op of two members, which goes between just these, and 0 otherwise. Data and ack
// belong to the lane that they are on. The others are numbered per link and direction, from 1 on, and are sent again
// on another lane when theirs has ended (link.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "pccl/engine.h"

namespace pccl {

// What all members of an op must agree on. Both ends of a send and recv call it a send; root is 0, and op is sum,
// where the kind has none. `count` is that of a whole buffer where all have the same, else that of a block; it is 0
// for a barrier and an all_to_all, whose members agree pair by pair.
struct Descriptor {
  std::uint64_t count = 0;
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;
  Collective kind = Collective::all_reduce;
  PeerId root = 0;
  Quantization quantization = {};  // without its seed
  bool operator==(const Descriptor&) const = default;
};

// Two members' calls that differ.
struct Mismatch {
  Descriptor own;  // the origin's
  PeerId other = 0;
  Descriptor others;
};

struct AbortReason {
  // cancelled, call_mismatch, peer_lost, non_finite_input, or descriptor_mismatch, which has `mismatch`
  ErrorCode code = ErrorCode::cancelled;
  PeerId origin = 0;  // who withdrew it, found the mismatch, waits in another call, couldn't go on, or has that input
  std::optional<Mismatch> mismatch;
};

// Shared, as it may go to many peers and is kept until they have acknowledged it. Null: none.
using Payload = std::shared_ptr<const std::vector<std::uint8_t>>;

struct ReadyBody {
  Descriptor descriptor;
  Payload payload = nullptr;  // at most limits::ready_payload_bytes_max
};
struct DataBody {
  std::uint32_t step = 0;   // of the op's algorithm
  std::uint64_t chunk = 0;  // of what it passes in that step
  std::uint32_t bytes = 0;
};
// A word of the op's algorithm.
struct StepBody {
  std::uint32_t step = 0;
  std::uint64_t value = 0;
};
struct DoneBody {
  // To all others at once, instead of in rounds.
  static constexpr std::uint32_t to_all = 32;
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

// How many lanes its sender wants the link to have, from now on.
struct LanesBody {
  std::uint32_t count = 1;
};

struct Frame {
  Epoch epoch = 0;
  OpKey key;
  std::variant<ReadyBody, DataBody, StepBody, DoneBody, AbortBody, AckBody, OverBody, LanesBody> body;
  std::uint64_t number = 0;
};

// One chunk of an op, whose header and place follow from this.
struct ChunkId {
  Epoch epoch = 0;
  OpKey key;
  DataBody body;
};

inline constexpr std::size_t header_bytes = 64;
inline constexpr std::size_t descriptor_bytes = 24;
// Of the frames that are read as a whole, all but data.
inline constexpr std::size_t control_payload_bytes_max = descriptor_bytes + limits::ready_payload_bytes_max;
using Header = std::array<std::uint8_t, header_bytes>;

// For data: the header alone. Otherwise the whole frame.
void append_frame(const Frame& frame, std::vector<std::uint8_t>& to);
Header data_header(const ChunkId& chunk);

// Of a header that payload_bytes takes: its payload isn't read as a whole.
bool is_data(std::span<const std::uint8_t, header_bytes> header);
// Bytes of payload behind this header; nothing, with the reason in `error`, for a header that no peer should send.
std::optional<std::uint32_t> payload_bytes(std::span<const std::uint8_t, header_bytes> header, std::string& error);
// `payload` has the size that payload_bytes gave, or is empty for data.
std::optional<Frame> decode_frame(std::span<const std::uint8_t, header_bytes> header,
                                  std::span<const std::uint8_t> payload, std::string& error);

}  // namespace pccl
