// What follows the handshake on a connection of kind state. The one who dialled asks, any number of questions without
// waiting; the other side answers in order. A tensor is named by what it holds: the root of its hash tree and its
// size, so that two tensors with the same content are one.
//
//   request  kind u32, count u32, first u64, bytes u64, zero u64, root u8[16]
//   reply    status u32, zero u32, bytes u64, then that many bytes
//
//   leaves   the hashes of `count` leaves from `first` on, 16 bytes each
//   data     these leaves' bytes
//   have     which of these leaves can be had: a bit each, the first one in the lowest bit of the first byte
//   lend     where the tensor lies in the answering process's memory (first = count = 0): address u64, word u64,
//            token u64, zero u64, as lent_memory.h explains
//   stale    leaf `first` came with other bytes than its hash says. The answer has no bytes: it says that this was heard,
//            so that the connection may be closed
//
// One that is told, and never answered:
//
//   read     `count` leaves from `first` on were read from lent memory
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "base/limits.h"
#include "base/little_endian.h"
#include "hash/hash_tree.h"
#include "pccl/engine.h"

namespace pccl::state_wire {

inline constexpr std::size_t request_bytes = 48;
inline constexpr std::size_t reply_bytes = 16;
inline constexpr std::size_t lend_bytes = 32;

enum class Kind : std::uint32_t { leaves = 1, data = 2, have = 3, lend = 4, stale = 5, read = 6 };
enum class Status : std::uint32_t { found = 0, unknown = 1 };

struct Request {
  Kind kind = Kind::leaves;
  std::uint32_t count = 0;
  std::uint64_t first = 0;
  std::uint64_t bytes = 0;  // of the tensor
  Hash128 root{};

  bool answered() const { return kind != Kind::read; }
  // Of the answer to it, if it is found.
  std::uint64_t answer_bytes() const {
    switch (kind) {
      case Kind::leaves:
        return count * sizeof(Hash128);
      case Kind::data:
        return leaves_bytes(bytes, first, count);
      case Kind::have:
        return (count + 7) / 8;
      case Kind::lend:
        return lend_bytes;
      case Kind::stale:
      case Kind::read:
        break;
    }
    return 0;
  }
};

struct Reply {
  Status status = Status::unknown;
  std::uint64_t bytes = 0;
};

using RequestBytes = std::array<std::uint8_t, request_bytes>;
using ReplyBytes = std::array<std::uint8_t, reply_bytes>;

inline RequestBytes encode_request(const Request& request) {
  RequestBytes bytes{};
  store_le(bytes.data(), static_cast<std::uint32_t>(request.kind));
  store_le(bytes.data() + 4, request.count);
  store_le(bytes.data() + 8, request.first);
  store_le(bytes.data() + 16, request.bytes);
  std::memcpy(bytes.data() + 32, request.root.data(), request.root.size());
  return bytes;
}

// Nothing for what no peer should send.
inline std::optional<Request> decode_request(std::span<const std::uint8_t, request_bytes> bytes) {
  const auto kind = load_le<std::uint32_t>(bytes.data());
  if (kind < static_cast<std::uint32_t>(Kind::leaves) || kind > static_cast<std::uint32_t>(Kind::read)) {
    return std::nullopt;
  }
  Request request{.kind = static_cast<Kind>(kind),
                  .count = load_le<std::uint32_t>(bytes.data() + 4),
                  .first = load_le<std::uint64_t>(bytes.data() + 8),
                  .bytes = load_le<std::uint64_t>(bytes.data() + 16)};
  if (load_le<std::uint64_t>(bytes.data() + 24) != 0) return std::nullopt;
  std::memcpy(request.root.data(), bytes.data() + 32, request.root.size());
  const std::uint64_t leaves = leaf_count(request.bytes);
  if (request.kind == Kind::lend) {
    if (request.first != 0 || request.count != 0 || leaves == 0) return std::nullopt;
    return request;
  }
  const std::uint32_t most = request.kind == Kind::data || request.kind == Kind::read
                                 ? limits::state_request_leaves_max
                             : request.kind == Kind::stale ? 1
                                                           : limits::state_request_hashes_max;
  if (request.count == 0 || request.count > most || request.first >= leaves || request.count > leaves - request.first) {
    return std::nullopt;
  }
  return request;
}

inline ReplyBytes encode_reply(const Reply& reply) {
  ReplyBytes bytes{};
  store_le(bytes.data(), static_cast<std::uint32_t>(reply.status));
  store_le(bytes.data() + 8, reply.bytes);
  return bytes;
}

// Nothing for what can't be the answer to `request`.
inline std::optional<Reply> decode_reply(std::span<const std::uint8_t, reply_bytes> bytes, const Request& request) {
  const auto status = load_le<std::uint32_t>(bytes.data());
  if (status > static_cast<std::uint32_t>(Status::unknown) || load_le<std::uint32_t>(bytes.data() + 4) != 0) {
    return std::nullopt;
  }
  const Reply reply{static_cast<Status>(status), load_le<std::uint64_t>(bytes.data() + 8)};
  if (reply.bytes != (reply.status == Status::found ? request.answer_bytes() : 0)) return std::nullopt;
  return reply;
}

}  // namespace pccl::state_wire
