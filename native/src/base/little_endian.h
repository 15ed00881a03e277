// Everything on the wire is little-endian, tensors too.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace pccl {

static_assert(std::endian::native == std::endian::little, "tensors are sent as they lie in memory");

template <typename T>
void store_le(std::uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

template <typename T>
T load_le(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace pccl
