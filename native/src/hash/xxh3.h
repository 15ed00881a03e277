// XXH3-128 (Yann Collet's xxHash, https://xxhash.com), seed 0, in canonical (big-endian) order, by the widest vectors
// that this CPU has; the values are the same on every CPU.
#pragma once

#include <cstddef>
#include <string>

#include "pccl/engine.h"

namespace pccl {

Hash128 xxh3_128(const void* data, std::size_t bytes);

std::string to_hex(const Hash128& hash);

}  // namespace pccl
