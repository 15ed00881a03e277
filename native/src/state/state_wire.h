// What follows the handshake on a connection of kind state. The one who dialled asks for tensors, any number of
// them without waiting; the other side answers in order.
//
//   request  name_bytes u32, zero u32, bytes u64, hash u8[16], name
//   reply    status u32, zero u32, bytes u64, then that many bytes of the tensor
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/little_endian.h"
#include "pccl/engine.h"

namespace pccl::state_wire {

inline constexpr std::size_t request_header_bytes = 32;
inline constexpr std::size_t request_bytes_max = request_header_bytes + limits::tensor_name_bytes_max;
inline constexpr std::size_t reply_bytes = 16;

enum class Status : std::uint32_t { found = 0, unknown = 1 };

struct Request {
  std::string name;
  Hash128 hash{};
  std::uint64_t bytes = 0;
};

struct Reply {
  Status status = Status::unknown;
  std::uint64_t bytes = 0;
};

inline void append_request(const Request& request, std::vector<std::uint8_t>& to) {
  const std::size_t begin = to.size();
  to.resize(begin + request_header_bytes + request.name.size());
  std::uint8_t* const at = to.data() + begin;
  store_le(at, static_cast<std::uint32_t>(request.name.size()));
  store_le(at + 4, std::uint32_t{0});
  store_le(at + 8, request.bytes);
  std::memcpy(at + 16, request.hash.data(), request.hash.size());
  std::memcpy(at + request_header_bytes, request.name.data(), request.name.size());
}

// Size of the request that begins here; nothing when no peer should send it.
inline std::optional<std::size_t> request_bytes(std::span<const std::uint8_t, request_header_bytes> header) {
  const auto name_bytes = load_le<std::uint32_t>(header.data());
  if (name_bytes == 0 || name_bytes > limits::tensor_name_bytes_max) return std::nullopt;
  if (load_le<std::uint32_t>(header.data() + 4) != 0) return std::nullopt;
  return request_header_bytes + name_bytes;
}

// `bytes` is as long as request_bytes says.
inline Request decode_request(std::span<const std::uint8_t> bytes) {
  Request request;
  request.bytes = load_le<std::uint64_t>(bytes.data() + 8);
  std::memcpy(request.hash.data(), bytes.data() + 16, request.hash.size());
  request.name.assign(bytes.begin() + request_header_bytes, bytes.end());
  return request;
}

inline std::array<std::uint8_t, reply_bytes> encode_reply(const Reply& reply) {
  std::array<std::uint8_t, reply_bytes> bytes{};
  store_le(bytes.data(), static_cast<std::uint32_t>(reply.status));
  store_le(bytes.data() + 8, reply.bytes);
  return bytes;
}

inline std::optional<Reply> decode_reply(std::span<const std::uint8_t, reply_bytes> bytes) {
  const auto status = load_le<std::uint32_t>(bytes.data());
  if (status > static_cast<std::uint32_t>(Status::unknown) || load_le<std::uint32_t>(bytes.data() + 4) != 0) {
    return std::nullopt;
  }
  return Reply{static_cast<Status>(status), load_le<std::uint64_t>(bytes.data() + 8)};
}

}  // namespace pccl::state_wire
