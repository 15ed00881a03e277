#include "hash/xxh3.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/limits.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace pccl {

std::optional<Hash128> xxh3_128(const void* data, std::size_t bytes, const std::atomic<bool>& stop) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);
  XXH3_128bits_reset(&state);
  const auto* at = static_cast<const std::uint8_t*>(data);
  while (bytes > 0) {
    if (stop.load(std::memory_order_relaxed)) return std::nullopt;
    const std::size_t piece = std::min(bytes, limits::hash_piece_bytes);
    XXH3_128bits_update(&state, at, piece);
    at += piece;
    bytes -= piece;
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
  Hash128 hash;
  std::memcpy(hash.data(), canonical.digest, hash.size());
  return hash;
}

std::string to_hex(const Hash128& hash) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : hash) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

}  // namespace pccl
