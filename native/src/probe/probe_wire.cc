#include "probe/probe_wire.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "base/limits.h"

namespace pccl::probe_wire {
namespace {

std::int64_t outcome(ssize_t result) {
  if (result > 0) return result;
  return result < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

}  // namespace

std::span<const std::uint8_t> noise() {
  static const std::vector<std::uint8_t> bytes = [] {
    std::vector<std::uint8_t> made(limits::link_turn_bytes / 2);
    // Marsaglia's xorshift.
    std::uint64_t state = 0x9e3779b97f4a7c15;
    for (std::uint8_t& byte : made) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      byte = static_cast<std::uint8_t>(state);
    }
    return made;
  }();
  return bytes;
}

std::int64_t send_noise(int fd) {
  const std::span<const std::uint8_t> bytes = noise();
  return outcome(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

std::int64_t throw_away(int fd) {
  static thread_local std::array<std::uint8_t, limits::link_turn_bytes / 2> nowhere;
  return outcome(::recv(fd, nowhere.data(), nowhere.size(), 0));
}

}  // namespace pccl::probe_wire
