// What goes over a probe's connection once the handshake is over. The side that dialled sends pings, one byte each,
// which the other one sends back; then one byte that says who is to stream: that side sends bytes that mean nothing, as
// fast as the connection takes them, and the other one throws them away, until the side that dialled ends the connection.
#pragma once

#include <cstdint>
#include <span>

namespace pccl::probe_wire {

inline constexpr std::uint8_t ping = 1;
inline constexpr std::uint8_t stream_to_you = 2;
inline constexpr std::uint8_t stream_to_me = 3;

// What is streamed, again and again: without a pattern, so that a path that compresses doesn't look faster than it is
// for tensors.
std::span<const std::uint8_t> noise();

// Each a bounded part, so that others have their turn: the bytes that came or went; 0 when there is nothing to be had
// for now, -1 at the end of the connection.
std::int64_t send_noise(int fd);
std::int64_t throw_away(int fd);

}  // namespace pccl::probe_wire
