#include "transport/frame.h"

#include <algorithm>
#include <cstring>

#include "base/dtype.h"
#include "base/limits.h"
#include "base/little_endian.h"

namespace pccl {
namespace {

enum class FrameType : std::uint8_t { ready = 1, data = 2, done = 3, abort = 4, ack = 5, over = 6 };

// Codes on the wire; ErrorCode's own numbers may change.
constexpr std::uint8_t abort_cancelled = 1;
constexpr std::uint8_t abort_mismatch = 2;
constexpr std::uint8_t abort_call_mismatch = 3;

constexpr std::size_t mismatch_bytes = control_payload_bytes_max;
constexpr std::uint32_t rounds_max = 32;

struct RawHeader {
  std::uint8_t type = 0;
  std::uint8_t a = 0;
  std::uint8_t b = 0;
  std::uint32_t payload_bytes = 0;
  Epoch epoch = 0;
  OpKey key;
  std::uint32_t step = 0;
  std::uint64_t value = 0;
  std::uint64_t number = 0;
};

void store(const RawHeader& raw, std::uint8_t* at) {
  at[0] = raw.type;
  at[1] = raw.a;
  at[2] = raw.b;
  at[3] = 0;
  store_le(at + 4, raw.payload_bytes);
  store_le(at + 8, raw.epoch);
  store_le(at + 16, raw.key.tag);
  store_le(at + 24, raw.key.seq);
  store_le(at + 28, raw.step);
  store_le(at + 32, raw.value);
  store_le(at + 40, raw.number);
}

RawHeader load(const std::uint8_t* at) {
  RawHeader raw;
  raw.type = at[0];
  raw.a = at[1];
  raw.b = at[2];
  raw.payload_bytes = load_le<std::uint32_t>(at + 4);
  raw.epoch = load_le<Epoch>(at + 8);
  raw.key.tag = load_le<std::uint64_t>(at + 16);
  raw.key.seq = load_le<std::uint32_t>(at + 24);
  raw.step = load_le<std::uint32_t>(at + 28);
  raw.value = load_le<std::uint64_t>(at + 32);
  raw.number = load_le<std::uint64_t>(at + 40);
  return raw;
}

// count u64, dtype u8, op u8, zero u8[6]
void store_descriptor(const Descriptor& descriptor, std::uint8_t* at) {
  store_le(at, descriptor.count);
  at[8] = static_cast<std::uint8_t>(descriptor.dtype);
  at[9] = static_cast<std::uint8_t>(descriptor.op);
  std::memset(at + 10, 0, 6);
}

std::optional<Descriptor> make_descriptor(std::uint64_t count, std::uint8_t dtype, std::uint8_t op) {
  if (!is_dtype(dtype) || !is_reduce_op(op)) return {};
  const Descriptor descriptor{count, static_cast<DType>(dtype), static_cast<ReduceOp>(op)};
  if (count == 0 || count > UINT64_MAX / 2 / element_bytes(descriptor.dtype)) return {};
  return descriptor;
}

std::optional<Descriptor> load_descriptor(const std::uint8_t* at) {
  if (std::any_of(at + 10, at + 16, [](std::uint8_t byte) { return byte != 0; })) return {};
  return make_descriptor(load_le<std::uint64_t>(at), at[8], at[9]);
}

struct HeaderOf {
  RawHeader& raw;

  void operator()(const ReadyBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::ready);
    raw.a = static_cast<std::uint8_t>(body.descriptor.dtype);
    raw.b = static_cast<std::uint8_t>(body.descriptor.op);
    raw.value = body.descriptor.count;
  }
  void operator()(const DataBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::data);
    raw.payload_bytes = body.bytes;
    raw.step = body.step;
    raw.value = body.chunk;
  }
  void operator()(const DoneBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::done);
    raw.a = static_cast<std::uint8_t>(body.round);
  }
  void operator()(const AbortBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::abort);
    raw.a = body.reason.mismatch                           ? abort_mismatch
            : body.reason.code == ErrorCode::call_mismatch ? abort_call_mismatch
                                                           : abort_cancelled;
    raw.payload_bytes = body.reason.mismatch ? mismatch_bytes : 0;
    raw.value = body.reason.origin;
  }
  void operator()(const AckBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::ack);
    raw.value = body.chunks;
    raw.number = body.frames;
  }
  void operator()(const OverBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::over);
    raw.a = static_cast<std::uint8_t>(body.slot);
    raw.key.tag = body.version;
    raw.value = body.chunks;
  }
};

RawHeader raw_header(const Frame& frame) {
  RawHeader raw;
  raw.epoch = frame.epoch;
  raw.key = frame.key;
  raw.number = frame.number;
  std::visit(HeaderOf{raw}, frame.body);
  return raw;
}

// The reason why no peer should send this header, or null.
const char* fault(const RawHeader& raw, std::uint8_t reserved) {
  if (reserved != 0) return "frame header has a reserved byte set";
  if (raw.type < 1 || raw.type > static_cast<std::uint8_t>(FrameType::over)) return "unknown frame type";
  const auto type = static_cast<FrameType>(raw.type);
  if (type != FrameType::data) {
    if (raw.step != 0) return "step in a frame that has none";
    const bool mismatch = type == FrameType::abort && raw.a == abort_mismatch;
    if (raw.payload_bytes != (mismatch ? mismatch_bytes : 0)) return "payload of the wrong size";
  }
  if (type != FrameType::data && type != FrameType::ack && raw.number == 0) return "frame without its number";
  if ((type == FrameType::ack || type == FrameType::over) && (raw.epoch != 0 || raw.key.seq != 0)) {
    return "op in a frame that has none";
  }
  if (type != FrameType::ready && raw.b != 0) return "second detail in a frame that has none";
  switch (type) {
    case FrameType::ready:
      if (!make_descriptor(raw.value, raw.a, raw.b)) return "descriptor out of range";
      return nullptr;
    case FrameType::data:
      if (raw.a != 0 || raw.number != 0) return "detail in a data frame";
      if (raw.payload_bytes == 0 || raw.payload_bytes > limits::chunk_bytes) return "chunk of the wrong size";
      return nullptr;
    case FrameType::done:
      if (raw.a >= rounds_max || raw.value != 0) return "done round out of range";
      return nullptr;
    case FrameType::abort:
      if (raw.a < abort_cancelled || raw.a > abort_call_mismatch) return "unknown abort code";
      return nullptr;
    case FrameType::ack:
      if (raw.a != 0 || raw.key.tag != 0) return "detail in an ack frame";
      return nullptr;
    case FrameType::over:
      if (raw.a >= limits::connections_per_peer_max) return "lane out of range";
      return nullptr;
  }
  return "unknown frame type";
}

}  // namespace

void append_frame(const Frame& frame, std::vector<std::uint8_t>& to) {
  const std::size_t begin = to.size();
  to.resize(begin + header_bytes);
  store(raw_header(frame), to.data() + begin);
  const auto* abort = std::get_if<AbortBody>(&frame.body);
  if (abort == nullptr || !abort->reason.mismatch) return;
  const Mismatch& mismatch = *abort->reason.mismatch;
  to.resize(begin + header_bytes + mismatch_bytes);
  std::uint8_t* const payload = to.data() + begin + header_bytes;
  store_descriptor(mismatch.own, payload);
  store_le(payload + 16, mismatch.other);
  store_descriptor(mismatch.others, payload + 24);
}

Header data_header(const ChunkId& chunk) {
  Header header;
  store(raw_header({chunk.epoch, chunk.key, chunk.body}), header.data());
  return header;
}

std::optional<std::uint32_t> payload_bytes(std::span<const std::uint8_t, header_bytes> header, std::string& error) {
  const RawHeader raw = load(header.data());
  if (const char* reason = fault(raw, header[3])) {
    error = reason;
    return std::nullopt;
  }
  return raw.payload_bytes;
}

std::optional<Frame> decode_frame(std::span<const std::uint8_t, header_bytes> header,
                                  std::span<const std::uint8_t> payload, std::string& error) {
  const RawHeader raw = load(header.data());
  if (const char* reason = fault(raw, header[3])) {
    error = reason;
    return std::nullopt;
  }
  Frame frame{raw.epoch, raw.key, {}, raw.number};
  switch (static_cast<FrameType>(raw.type)) {
    case FrameType::ready:
      frame.body = ReadyBody{*make_descriptor(raw.value, raw.a, raw.b)};
      break;
    case FrameType::data:
      frame.body = DataBody{raw.step, raw.value, raw.payload_bytes};
      break;
    case FrameType::done:
      frame.body = DoneBody{raw.a};
      break;
    case FrameType::abort: {
      AbortReason reason{raw.a == abort_call_mismatch ? ErrorCode::call_mismatch : ErrorCode::cancelled, raw.value,
                         std::nullopt};
      if (raw.a == abort_mismatch) {
        if (payload.size() != mismatch_bytes) {
          error = "payload of the wrong size";
          return std::nullopt;
        }
        const auto own = load_descriptor(payload.data());
        const auto others = load_descriptor(payload.data() + 24);
        if (!own || !others) {
          error = "descriptor out of range";
          return std::nullopt;
        }
        reason.code = ErrorCode::descriptor_mismatch;
        reason.mismatch = Mismatch{*own, load_le<PeerId>(payload.data() + 16), *others};
      }
      frame.body = AbortBody{reason};
      break;
    }
    case FrameType::ack:
      frame.body = AckBody{raw.value, raw.number};
      frame.number = 0;
      break;
    case FrameType::over:
      frame.key = {};
      frame.body = OverBody{raw.a, raw.key.tag, raw.value};
      break;
  }
  return frame;
}

}  // namespace pccl
