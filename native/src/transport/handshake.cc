#include "transport/handshake.h"

#include <algorithm>

#include "base/limits.h"
#include "base/little_endian.h"

namespace pccl {
namespace {

constexpr std::array<std::uint8_t, 8> magic = {'P', 'C', 'C', 'L', 'P', 'E', 'E', 'R'};
// Raised when an older peer would misread a newer one's bytes, those of frames and chunks too.
constexpr std::uint32_t version = 4;
// Far above what a process can reach, and far from where lane_version would overflow.
constexpr std::uint64_t incarnation_max = std::uint64_t{1} << 48;

bool is_ours(const std::uint8_t* at) {
  return std::equal(magic.begin(), magic.end(), at) && load_le<std::uint32_t>(at + 8) == version;
}

void store_start(std::uint8_t* at) {
  std::copy(magic.begin(), magic.end(), at);
  store_le(at + 8, version);
}

}  // namespace

HelloBytes encode_hello(const Hello& hello) {
  HelloBytes bytes{};
  store_start(bytes.data());
  store_le(bytes.data() + 12, static_cast<std::uint32_t>(hello.kind));
  store_le(bytes.data() + 16, hello.epoch);
  store_le(bytes.data() + 24, hello.from);
  store_le(bytes.data() + 32, hello.to);
  std::copy(hello.key.begin(), hello.key.end(), bytes.begin() + 40);
  store_le(bytes.data() + 56, hello.link.epoch);
  store_le(bytes.data() + 64, hello.link.attempt);
  store_le(bytes.data() + 68, hello.lanes);
  store_le(bytes.data() + 72, hello.slot);
  store_le(bytes.data() + 80, hello.incarnation);
  return bytes;
}

std::optional<Hello> decode_hello(std::span<const std::uint8_t, hello_bytes> bytes) {
  if (!is_ours(bytes.data())) return std::nullopt;
  Hello hello;
  const auto kind = load_le<std::uint32_t>(bytes.data() + 12);
  hello.kind = static_cast<ConnectionKind>(kind);
  hello.epoch = load_le<Epoch>(bytes.data() + 16);
  hello.from = load_le<PeerId>(bytes.data() + 24);
  hello.to = load_le<PeerId>(bytes.data() + 32);
  std::copy(bytes.begin() + 40, bytes.begin() + 56, hello.key.begin());
  hello.link = {load_le<Epoch>(bytes.data() + 56), load_le<std::uint32_t>(bytes.data() + 64)};
  hello.lanes = load_le<std::uint32_t>(bytes.data() + 68);
  hello.slot = load_le<std::uint32_t>(bytes.data() + 72);
  hello.incarnation = load_le<std::uint64_t>(bytes.data() + 80);
  if (hello.from == hello.to || load_le<std::uint32_t>(bytes.data() + 76) != 0) return std::nullopt;
  switch (hello.kind) {
    case ConnectionKind::link: {
      const bool in_range = hello.lanes <= limits::connections_per_peer_max &&
                            hello.slot < limits::connections_per_peer_max && hello.incarnation >= 1 &&
                            hello.incarnation <= incarnation_max;
      return in_range ? std::optional(hello) : std::nullopt;
    }
    case ConnectionKind::state:
    case ConnectionKind::probe: {
      const bool empty = std::all_of(bytes.begin() + 56, bytes.end(), [](std::uint8_t byte) { return byte == 0; });
      return empty ? std::optional(hello) : std::nullopt;
    }
  }
  return std::nullopt;
}

WelcomeBytes encode_welcome(const Welcome& welcome) {
  WelcomeBytes bytes{};
  store_start(bytes.data());
  store_le(bytes.data() + 12, static_cast<std::uint32_t>(welcome.status));
  store_le(bytes.data() + 16, welcome.link.epoch);
  store_le(bytes.data() + 24, welcome.link.attempt);
  store_le(bytes.data() + 28, welcome.lanes);
  return bytes;
}

std::optional<Welcome> decode_welcome(std::span<const std::uint8_t, welcome_bytes> bytes) {
  if (!is_ours(bytes.data())) return std::nullopt;
  const auto status = load_le<std::uint32_t>(bytes.data() + 12);
  if (status > static_cast<std::uint32_t>(Welcome::Status::no_memory)) return std::nullopt;
  Welcome welcome;
  welcome.status = static_cast<Welcome::Status>(status);
  welcome.link = {load_le<Epoch>(bytes.data() + 16), load_le<std::uint32_t>(bytes.data() + 24)};
  welcome.lanes = load_le<std::uint32_t>(bytes.data() + 28);
  if (welcome.lanes > limits::connections_per_peer_max) return std::nullopt;
  return welcome;
}

}  // namespace pccl
