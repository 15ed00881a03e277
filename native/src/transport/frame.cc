#include "transport/frame.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/collectives.h"
#include "base/dtype.h"
#include "base/limits.h"
#include "base/little_endian.h"
#include "base/quantization.h"

namespace pccl {
namespace {

enum class FrameType : std::uint8_t { ready = 1, data = 2, step = 3, done = 4, abort = 5, ack = 6, over = 7, lanes = 8 };

// Codes on the wire; ErrorCode's own numbers may change.
constexpr std::uint8_t abort_cancelled = 1;
constexpr std::uint8_t abort_mismatch = 2;
constexpr std::uint8_t abort_call_mismatch = 3;
constexpr std::uint8_t abort_peer_lost = 4;
constexpr std::uint8_t abort_non_finite_input = 5;

constexpr std::size_t mismatch_bytes = 2 * descriptor_bytes + sizeof(PeerId);

struct RawHeader {
  std::uint8_t type = 0;
  std::uint8_t a = 0;
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
  at[2] = at[3] = 0;
  store_le(at + 4, raw.payload_bytes);
  store_le(at + 8, raw.epoch);
  store_le(at + 16, raw.key.tag);
  store_le(at + 24, raw.key.from);
  store_le(at + 32, raw.key.to);
  store_le(at + 40, raw.key.seq);
  store_le(at + 44, raw.step);
  store_le(at + 48, raw.value);
  store_le(at + 56, raw.number);
}

RawHeader load(const std::uint8_t* at) {
  RawHeader raw;
  raw.type = at[0];
  raw.a = at[1];
  raw.payload_bytes = load_le<std::uint32_t>(at + 4);
  raw.epoch = load_le<Epoch>(at + 8);
  raw.key.tag = load_le<std::uint64_t>(at + 16);
  raw.key.from = load_le<PeerId>(at + 24);
  raw.key.to = load_le<PeerId>(at + 32);
  raw.key.seq = load_le<std::uint32_t>(at + 40);
  raw.step = load_le<std::uint32_t>(at + 44);
  raw.value = load_le<std::uint64_t>(at + 48);
  raw.number = load_le<std::uint64_t>(at + 56);
  return raw;
}

// All zero for none.
void store_quantization(const Quantization& quantization, std::uint8_t* at) {
  std::memset(at, 0, 3);
  if (quantization.format == QuantizedFormat::none) return;
  at[0] = static_cast<std::uint8_t>(quantization.format);
  if (quantization.scheme == QuantizationScheme::zero_point) at[1] |= 1;
  if (quantization.rounding == QuantizationRounding::stochastic) at[1] |= 2;
  if (quantization.pass_non_finite) at[1] |= 4;
  at[2] = static_cast<std::uint8_t>(std::countr_zero(quantization.block));
}

std::optional<Quantization> load_quantization(const std::uint8_t* at) {
  if (at[0] == 0) return at[1] == 0 && at[2] == 0 ? std::optional(Quantization{}) : std::nullopt;
  if (at[1] >= 8 || at[2] >= 32) return {};
  Quantization quantization{.format = static_cast<QuantizedFormat>(at[0]), .block = std::uint32_t{1} << at[2]};
  if ((at[1] & 1) != 0) quantization.scheme = QuantizationScheme::zero_point;
  if ((at[1] & 2) != 0) quantization.rounding = QuantizationRounding::stochastic;
  quantization.pass_non_finite = (at[1] & 4) != 0;
  return quantization_fault(quantization) == nullptr ? std::optional(quantization) : std::nullopt;
}

void store_descriptor(const Descriptor& descriptor, std::uint8_t* at) {
  store_le(at, descriptor.count);
  store_le(at + 8, descriptor.root);
  at[16] = static_cast<std::uint8_t>(descriptor.kind);
  at[17] = static_cast<std::uint8_t>(descriptor.dtype);
  at[18] = static_cast<std::uint8_t>(descriptor.op);
  store_quantization(descriptor.quantization, at + 19);
  std::memset(at + 22, 0, 2);
}

std::optional<Descriptor> load_descriptor(const std::uint8_t* at) {
  if (at[22] != 0 || at[23] != 0) return {};
  if (!is_collective(at[16]) || !is_dtype(at[17]) || !is_reduce_op(at[18])) return {};
  const auto quantization = load_quantization(at + 19);
  if (!quantization) return {};
  const Descriptor descriptor{load_le<std::uint64_t>(at), static_cast<DType>(at[17]), static_cast<ReduceOp>(at[18]),
                              static_cast<Collective>(at[16]), load_le<PeerId>(at + 8), *quantization};
  if (descriptor.count > UINT64_MAX / 2 / element_bytes(descriptor.dtype)) return {};
  const CollectiveTraits& kind = traits(descriptor.kind);
  const bool may_be_empty = descriptor.kind == Collective::barrier || descriptor.kind == Collective::all_to_all;
  if (descriptor.count == 0 && !may_be_empty) return {};
  if (descriptor.kind == Collective::recv || (descriptor.root != 0 && !kind.has_root)) return {};
  if (descriptor.op != ReduceOp::sum && !kind.reduces) return {};
  const bool can_quantize = kind.reduces && descriptor.dtype == DType::f32 && descriptor.op != ReduceOp::prod;
  if (quantization->format != QuantizedFormat::none && !can_quantize) return {};
  return descriptor;
}

struct HeaderOf {
  RawHeader& raw;

  void operator()(const ReadyBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::ready);
    raw.payload_bytes = static_cast<std::uint32_t>(descriptor_bytes + (body.payload ? body.payload->size() : 0));
  }
  void operator()(const DataBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::data);
    raw.payload_bytes = body.bytes;
    raw.step = body.step;
    raw.value = body.chunk;
  }
  void operator()(const StepBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::step);
    raw.step = body.step;
    raw.value = body.value;
  }
  void operator()(const DoneBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::done);
    raw.a = static_cast<std::uint8_t>(body.round);
  }
  void operator()(const AbortBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::abort);
    raw.a = body.reason.mismatch                           ? abort_mismatch
            : body.reason.code == ErrorCode::call_mismatch ? abort_call_mismatch
            : body.reason.code == ErrorCode::peer_lost     ? abort_peer_lost
            : body.reason.code == ErrorCode::non_finite_input ? abort_non_finite_input
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
  void operator()(const LanesBody& body) const {
    raw.type = static_cast<std::uint8_t>(FrameType::lanes);
    raw.a = static_cast<std::uint8_t>(body.count);
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

// The reason why the payload can't be that long, or null.
const char* payload_fault(const RawHeader& raw) {
  const std::uint32_t bytes = raw.payload_bytes;
  const auto type = static_cast<FrameType>(raw.type);
  if (type == FrameType::data) return bytes == 0 || bytes > limits::chunk_bytes ? "chunk of the wrong size" : nullptr;
  if (type == FrameType::ready && bytes >= descriptor_bytes && bytes <= control_payload_bytes_max) return nullptr;
  const bool mismatch = type == FrameType::abort && raw.a == abort_mismatch;
  const bool fits = type != FrameType::ready && bytes == (mismatch ? mismatch_bytes : 0);
  return fits ? nullptr : "payload of the wrong size";
}

// The reason why no peer should send this header, or null.
const char* fault(const RawHeader& raw, std::span<const std::uint8_t, header_bytes> header) {
  if (header[2] != 0 || header[3] != 0) return "frame header has a reserved byte set";
  if (raw.type < 1 || raw.type > static_cast<std::uint8_t>(FrameType::lanes)) return "unknown frame type";
  const auto type = static_cast<FrameType>(raw.type);
  if (type != FrameType::data && type != FrameType::step && raw.step != 0) return "step in a frame that has none";
  if (const char* const reason = payload_fault(raw)) return reason;
  if (type != FrameType::data && type != FrameType::ack && raw.number == 0) return "frame without its number";
  if (type == FrameType::ack || type == FrameType::over || type == FrameType::lanes) {
    if (raw.epoch != 0 || raw.key.seq != 0 || raw.key.from != 0 || raw.key.to != 0) return "op in a frame without one";
  } else if (!raw.key.of_two() && raw.key.from != 0) {
    return "op between a peer and itself";
  }
  switch (type) {
    case FrameType::ready:
      if (raw.a != 0 || raw.value != 0) return "detail in a ready frame";
      return nullptr;
    case FrameType::data:
      if (raw.a != 0 || raw.number != 0) return "detail in a data frame";
      return nullptr;
    case FrameType::step:
      if (raw.a != 0) return "detail in a step frame";
      return nullptr;
    case FrameType::done:
      if (raw.a > DoneBody::to_all || raw.value != 0) return "done round out of range";
      return nullptr;
    case FrameType::abort:
      if (raw.a < abort_cancelled || raw.a > abort_non_finite_input) return "unknown abort code";
      return nullptr;
    case FrameType::ack:
      if (raw.a != 0 || raw.key.tag != 0) return "detail in an ack frame";
      return nullptr;
    case FrameType::over:
      if (raw.a >= limits::connections_per_peer_max) return "lane out of range";
      return nullptr;
    case FrameType::lanes:
      if (raw.a < 1 || raw.a > limits::connections_per_peer_max) return "number of lanes out of range";
      if (raw.key.tag != 0 || raw.value != 0) return "detail in a lanes frame";
      return nullptr;
  }
  return "unknown frame type";
}

}  // namespace

void append_frame(const Frame& frame, std::vector<std::uint8_t>& to) {
  const std::size_t begin = to.size();
  const RawHeader raw = raw_header(frame);
  const bool data = std::holds_alternative<DataBody>(frame.body);
  to.resize(begin + header_bytes + (data ? 0 : raw.payload_bytes));
  store(raw, to.data() + begin);
  std::uint8_t* const payload = to.data() + begin + header_bytes;
  if (const auto* ready = std::get_if<ReadyBody>(&frame.body)) {
    store_descriptor(ready->descriptor, payload);
    if (ready->payload) std::copy(ready->payload->begin(), ready->payload->end(), payload + descriptor_bytes);
  } else if (const auto* abort = std::get_if<AbortBody>(&frame.body); abort && abort->reason.mismatch) {
    const Mismatch& mismatch = *abort->reason.mismatch;
    store_descriptor(mismatch.own, payload);
    store_le(payload + descriptor_bytes, mismatch.other);
    store_descriptor(mismatch.others, payload + descriptor_bytes + sizeof mismatch.other);
  }
}

Header data_header(const ChunkId& chunk) {
  Header header;
  store(raw_header({chunk.epoch, chunk.key, chunk.body}), header.data());
  return header;
}

bool is_data(std::span<const std::uint8_t, header_bytes> header) {
  return header[0] == static_cast<std::uint8_t>(FrameType::data);
}

std::optional<std::uint32_t> payload_bytes(std::span<const std::uint8_t, header_bytes> header, std::string& error) {
  const RawHeader raw = load(header.data());
  if (const char* reason = fault(raw, header)) {
    error = reason;
    return std::nullopt;
  }
  return raw.payload_bytes;
}

std::optional<Frame> decode_frame(std::span<const std::uint8_t, header_bytes> header,
                                  std::span<const std::uint8_t> payload, std::string& error) {
  const RawHeader raw = load(header.data());
  if (const char* reason = fault(raw, header)) {
    error = reason;
    return std::nullopt;
  }
  if (!is_data(header) && payload.size() != raw.payload_bytes) {
    error = "payload of the wrong size";
    return std::nullopt;
  }
  Frame frame{raw.epoch, raw.key, {}, raw.number};
  switch (static_cast<FrameType>(raw.type)) {
    case FrameType::ready: {
      const auto descriptor = load_descriptor(payload.data());
      if (!descriptor) {
        error = "descriptor out of range";
        return std::nullopt;
      }
      const auto own = payload.subspan(descriptor_bytes);
      ReadyBody body{*descriptor};
      if (!own.empty()) body.payload = std::make_shared<const std::vector<std::uint8_t>>(own.begin(), own.end());
      frame.body = std::move(body);
      break;
    }
    case FrameType::data:
      frame.body = DataBody{raw.step, raw.value, raw.payload_bytes};
      break;
    case FrameType::step:
      frame.body = StepBody{raw.step, raw.value};
      break;
    case FrameType::done:
      frame.body = DoneBody{raw.a};
      break;
    case FrameType::abort: {
      AbortReason reason{ErrorCode::cancelled, raw.value, std::nullopt};
      if (raw.a == abort_call_mismatch) reason.code = ErrorCode::call_mismatch;
      if (raw.a == abort_peer_lost) reason.code = ErrorCode::peer_lost;
      if (raw.a == abort_non_finite_input) reason.code = ErrorCode::non_finite_input;
      if (raw.a == abort_mismatch) {
        const auto own = load_descriptor(payload.data());
        const auto others = load_descriptor(payload.data() + descriptor_bytes + sizeof(PeerId));
        if (!own || !others) {
          error = "descriptor out of range";
          return std::nullopt;
        }
        reason.code = ErrorCode::descriptor_mismatch;
        reason.mismatch = Mismatch{*own, load_le<PeerId>(payload.data() + descriptor_bytes), *others};
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
    case FrameType::lanes:
      frame.body = LanesBody{raw.a};
      break;
  }
  return frame;
}

}  // namespace pccl
