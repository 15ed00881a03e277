// The bytes between two peers, little-endian. A connection begins with a Hello from the side that dialled and a
// Welcome from the other; on a link, frames follow in both directions: a header of 40 bytes and, for some types,
// a payload. Reading never trusts the sender: what doesn't decode is a reason to drop the connection.
//
//   Hello    magic "PCCLPEER" u8[8], version u32, kind u32, epoch u64, from u64, to u64, key u8[16]
//   Welcome  magic "PCCLPEER" u8[8], version u32, zero u32
//   header   type u8, a u8, b u8, zero u8, payload_bytes u32, epoch u64, tag u64, seq u32, step u32, value u64
//
//   type   a      b   step   value         payload
//   ready  dtype  op  0      count         none
//   data   0      0   step   chunk         elements
//   done   round  0   0      0             none
//   abort  code   0   0      origin peer   a mismatch's two descriptors, for other codes none
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

struct Frame {
  Epoch epoch = 0;
  OpKey key;
  std::variant<ReadyBody, DataBody, DoneBody, AbortBody> body;
};

inline constexpr std::size_t header_bytes = 40;
// Of the frames that are read as a whole, all but data.
inline constexpr std::size_t control_payload_bytes_max = 40;
using Header = std::array<std::uint8_t, header_bytes>;

// For data: the header alone. Otherwise the whole frame.
void append_frame(const Frame& frame, std::vector<std::uint8_t>& to);
Header data_header(Epoch epoch, OpKey key, const DataBody& body);

// Bytes of payload behind this header; nothing, with the reason in `error`, for a header that no peer should send.
std::optional<std::uint32_t> payload_bytes(std::span<const std::uint8_t, header_bytes> header, std::string& error);
// `payload` has the size that payload_bytes gave, or is empty for data.
std::optional<Frame> decode_frame(std::span<const std::uint8_t, header_bytes> header,
                                  std::span<const std::uint8_t> payload, std::string& error);

enum class ConnectionKind : std::uint32_t { link = 1, state = 2 };

struct Hello {
  ConnectionKind kind = ConnectionKind::link;
  Epoch epoch = 0;  // of the view that the connection is made for
  PeerId from = 0;
  PeerId to = 0;
  std::array<std::uint8_t, 16> key{};
};

inline constexpr std::size_t hello_bytes = 56;
inline constexpr std::size_t welcome_bytes = 16;

std::array<std::uint8_t, hello_bytes> encode_hello(const Hello& hello);
std::optional<Hello> decode_hello(std::span<const std::uint8_t, hello_bytes> bytes);
std::array<std::uint8_t, welcome_bytes> encode_welcome();
bool is_welcome(std::span<const std::uint8_t, welcome_bytes> bytes);

}  // namespace pccl
