// XXH3-128 (Yann Collet's xxHash, https://xxhash.com) of a tensor's bytes, in canonical (big-endian) order.
#pragma once

#include <atomic>
#include <cstddef>
#include <optional>
#include <string>

#include "pccl/engine.h"

namespace pccl {

// Empty when `stop` became true before the end; it is looked at once per MiB.
std::optional<Hash128> xxh3_128(const void* data, std::size_t bytes, const std::atomic<bool>& stop);

std::string to_hex(const Hash128& hash);

}  // namespace pccl
