#include "node/arguments.h"

#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "base/limits.h"
#include "node/errors.h"

namespace pccl::node {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr std::uint64_t port_max = std::numeric_limits<std::uint16_t>::max();
constexpr std::uint64_t u32_max = std::numeric_limits<std::uint32_t>::max();

PeerId read_peer_id(Napi::Value value, const std::string& what) {
  return read_integer(value, what, 0, safe_integer_max);
}

Member read_member(Napi::Value value, const std::string& what, std::uint64_t port_min) {
  const Napi::Object object = read_object(value, what);
  Member member;
  member.id = read_peer_id(object.Get("peerId"), what + ".peerId");
  member.host = read_string(object.Get("host"), what + ".host");
  member.port = static_cast<std::uint16_t>(read_integer(object.Get("port"), what + ".port", port_min, port_max));
  const Napi::Value via = object.Get("via");
  if (!via.IsUndefined()) member.via = read_peer_id(via, what + ".via");
  return member;
}

TransportMode read_transport(Napi::Value value, const std::string& what) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "auto") return TransportMode::automatic;
  if (name == "shm") return TransportMode::shm;
  if (name == "tcp") return TransportMode::tcp;
  throw_not(value, what, "\"auto\", \"shm\" or \"tcp\"");
}

std::uint32_t read_u32_or(Napi::Value value, const std::string& what, std::uint32_t otherwise, std::uint32_t max) {
  return value.IsUndefined() ? otherwise : static_cast<std::uint32_t>(read_integer(value, what, 1, max));
}

}  // namespace

std::uint64_t read_integer(Napi::Value value, const std::string& what, std::uint64_t min, std::uint64_t max) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max) && std::trunc(number) == number)) {
    throw_not(value, what, "an integer from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return static_cast<std::uint64_t>(number);
}

std::uint64_t read_tag(Napi::Value value, const std::string& what) {
  if (!value.IsBigInt()) throw_not(value, what, "a bigint");
  bool is_lossless = false;
  const std::uint64_t tag = value.As<Napi::BigInt>().Uint64Value(&is_lossless);
  if (!is_lossless) throw_invalid(value.Env(), what + " must be a bigint from 0 to 2^64 - 1.");
  return tag;
}

bool read_boolean(Napi::Value value, const std::string& what) {
  if (!value.IsBoolean()) throw_not(value, what, "a boolean");
  return value.As<Napi::Boolean>();
}

std::string read_string(Napi::Value value, const std::string& what) {
  if (!value.IsString()) throw_not(value, what, "a string");
  return value.As<Napi::String>();
}

Napi::Object read_object(Napi::Value value, const std::string& what) {
  if (!value.IsObject()) throw_not(value, what, "an object");
  return value.As<Napi::Object>();
}

Napi::Array read_array(Napi::Value value, const std::string& what) {
  if (!value.IsArray()) throw_not(value, what, "an array");
  return value.As<Napi::Array>();
}

Napi::Function read_function(Napi::Value value, const std::string& what) {
  if (!value.IsFunction()) throw_not(value, what, "a function");
  return value.As<Napi::Function>();
}

ReduceOp read_reduce_op(Napi::Value value, const std::string& what) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  for (std::uint8_t number = 0; is_reduce_op(number); ++number) {
    if (name == reduce_op_names[number]) return static_cast<ReduceOp>(number);
  }
  throw_not(value, what, "\"sum\", \"avg\", \"max\", \"min\" or \"prod\"");
}

Hash128 read_hash(Napi::Value value, const std::string& what) {
  const std::string text = read_string(value, what);
  Hash128 hash{};
  bool is_hex = text.size() == 2 * hash.size();
  for (std::size_t i = 0; is_hex && i < hash.size(); ++i) {
    const int high = hex_digit(text[2 * i]);
    const int low = hex_digit(text[2 * i + 1]);
    is_hex = high >= 0 && low >= 0;
    hash[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  if (!is_hex) throw_not(value, what, "32 hex digits");
  return hash;
}

std::string hash_text(const Hash128& hash) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : hash) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

Member read_member(Napi::Value value, const std::string& what) { return read_member(value, what, 1); }

View read_view(Napi::Value value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  View view;
  view.epoch = read_integer(object.Get("epoch"), what + ".epoch", 0, safe_integer_max);
  view.view_epoch = read_integer(object.Get("viewEpoch"), what + ".viewEpoch", 0, safe_integer_max);
  view.self = read_peer_id(object.Get("peerId"), what + ".peerId");
  const Napi::Value key = object.Get("key");
  if (!key.IsTypedArray() || key.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array ||
      key.As<Napi::TypedArray>().ElementLength() != view.key.size()) {
    throw_not(key, what + ".key", "a Uint8Array of 16 bytes");
  }
  // Not Uint8Array::Data, which goes through an ArrayBuffer and fails for a SharedArrayBuffer.
  const void* bytes = nullptr;
  napi_get_typedarray_info(value.Env(), key, nullptr, nullptr, const_cast<void**>(&bytes), nullptr, nullptr);
  std::copy_n(static_cast<const std::uint8_t*>(bytes), view.key.size(), view.key.begin());
  const Napi::Array ring = read_array(object.Get("ring"), what + ".ring");
  for (std::uint32_t i = 0; i < ring.Length(); ++i) {
    view.ring.push_back(read_member(ring.Get(i), what + ".ring[" + std::to_string(i) + "]", 0));
  }
  view.world_size =
      static_cast<std::uint32_t>(read_integer(object.Get("worldSize"), what + ".worldSize", 1, u32_max));
  view.silence_ms = static_cast<std::uint32_t>(
      read_integer(object.Get("silenceMs"), what + ".silenceMs", limits::silence_ms_min, limits::silence_ms_max));
  const Napi::Array relays = read_array(object.Get("relays"), what + ".relays");
  for (std::uint32_t i = 0; i < relays.Length(); ++i) {
    const std::string which = what + ".relays[" + std::to_string(i) + "]";
    const Napi::Object pair = read_object(relays.Get(i), which);
    view.relays.push_back({read_peer_id(pair.Get("a"), which + ".a"), read_peer_id(pair.Get("b"), which + ".b")});
  }
  const Napi::Array hosts = read_array(object.Get("hosts"), what + ".hosts");
  for (std::uint32_t i = 0; i < hosts.Length(); ++i) {
    const std::string which = what + ".hosts[" + std::to_string(i) + "]";
    view.hosts.push_back(static_cast<std::uint32_t>(read_integer(hosts.Get(i), which, 0, u32_max)));
  }
  return view;
}

OpKey read_op_key(Napi::Object object, const std::string& what) {
  OpKey key;
  key.tag = read_tag(object.Get("tag"), what + ".tag");
  key.seq = static_cast<std::uint32_t>(read_integer(object.Get("seq"), what + ".seq", 0, u32_max));
  const Napi::Value from = object.Get("from");
  const Napi::Value to = object.Get("to");
  if (from.IsUndefined() && to.IsUndefined()) return key;
  key.from = read_peer_id(from, what + ".from");
  key.to = read_peer_id(to, what + ".to");
  if (!key.of_two()) throw_invalid(object.Env(), what + ".from and " + what + ".to must be two peers.");
  return key;
}

std::vector<Verdict> read_verdicts(Napi::Value value, const std::string& what) {
  const Napi::Array array = read_array(value, what);
  std::vector<Verdict> verdicts;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const std::string which = what + "[" + std::to_string(i) + "]";
    const Napi::Object object = read_object(array.Get(i), which);
    Verdict verdict;
    verdict.key = read_op_key(object, which);
    verdict.commit = read_boolean(object.Get("commit"), which + ".commit");
    verdicts.push_back(verdict);
  }
  return verdicts;
}

EngineOptions read_engine_options(Napi::Value value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  EngineOptions options;
  options.host = read_string(object.Get("host"), what + ".host");
  options.port = static_cast<std::uint16_t>(read_integer(object.Get("port"), what + ".port", 0, port_max));
  options.connections_per_peer = read_u32_or(object.Get("connectionsPerPeer"), what + ".connectionsPerPeer",
                                             options.connections_per_peer, limits::connections_per_peer_max);
  options.ops_in_flight_max = read_u32_or(object.Get("opsInFlightMax"), what + ".opsInFlightMax",
                                          options.ops_in_flight_max, limits::ops_in_flight_max);
  const Napi::Value congestion_control = object.Get("congestionControl");
  if (!congestion_control.IsUndefined()) {
    options.congestion_control = read_string(congestion_control, what + ".congestionControl");
  }
  const Napi::Value transport = object.Get("transport");
  if (!transport.IsUndefined()) options.transport = read_transport(transport, what + ".transport");
  return options;
}

}  // namespace pccl::node
