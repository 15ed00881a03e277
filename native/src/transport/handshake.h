// How a connection between two peers begins, little-endian: a Hello from the side that dials, a Welcome from the
// other.
//
//   Hello    magic "PCCLPEER" u8[8], version u32, kind u32, epoch u64, from u64, to u64, key u8[16],
//            link.epoch u64, link.attempt u32, lanes u32, slot u32, zero u32, incarnation u64
//   Welcome  magic "PCCLPEER" u8[8], version u32, status u32, link.epoch u64, link.attempt u32, lanes u32
//
// What follows `key` is about links and 0 on other connections. On a Unix socket, which carries links alone, the
// Hello has the descriptor of the memory for a lane beside it (shm_segment.h).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>

#include "pccl/engine.h"

namespace pccl {

enum class ConnectionKind : std::uint32_t { link = 1, state = 2, probe = 3 };

// Which of the links that two peers have had over time: the view that it was first made for, and how often it has
// been made anew for that view. A later one is greater, so that two peers that don't agree take the greater one.
struct LinkId {
  Epoch epoch = 0;
  std::uint32_t attempt = 0;
  auto operator<=>(const LinkId&) const = default;
};

struct Hello {
  ConnectionKind kind = ConnectionKind::link;
  Epoch epoch = 0;  // of the view that the dialling side goes by
  PeerId from = 0;
  PeerId to = 0;
  std::array<std::uint8_t, 16> key{};
  LinkId link = {};
  std::uint32_t lanes = 0;  // how many the dialling side wants; 0: as the two sides find out
  std::uint32_t slot = 0;   // which of them this connection is to be
  // How often the slot has been filled; rises with each attempt.
  std::uint64_t incarnation = 0;

  // Of two connections for one slot the one with the greater version counts, whichever side dialled it: both sides
  // decide alike, without asking.
  std::uint64_t lane_version() const { return incarnation * 2 + (from < to ? 1 : 0); }
};

struct Welcome {
  enum class Status : std::uint32_t {
    welcome = 0,
    gone = 1,       // the accepting side has given the link up
    no_memory = 2,  // it can't use the memory that the dialling side has passed
  };
  Status status = Status::welcome;
  LinkId link = {};         // the one that the accepting side goes by
  std::uint32_t lanes = 0;  // how many it wants, likewise
};

inline constexpr std::size_t hello_bytes = 88;
inline constexpr std::size_t welcome_bytes = 32;
using HelloBytes = std::array<std::uint8_t, hello_bytes>;
using WelcomeBytes = std::array<std::uint8_t, welcome_bytes>;

HelloBytes encode_hello(const Hello& hello);
std::optional<Hello> decode_hello(std::span<const std::uint8_t, hello_bytes> bytes);
WelcomeBytes encode_welcome(const Welcome& welcome);
std::optional<Welcome> decode_welcome(std::span<const std::uint8_t, welcome_bytes> bytes);

}  // namespace pccl
