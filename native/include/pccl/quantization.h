// How f32 elements travel in fewer bytes. docs/quantization.md has the formats' layouts and errors.
#pragma once

#include <cstdint>

namespace pccl {

// The numbers of what follows are part of the wire format.
enum class QuantizedFormat : std::uint8_t {
  none = 0,
  u8 = 1,    // 256 evenly spaced values per block
  i8 = 2,    // the same, its codes stored as signed bytes
  i4 = 3,    // 16 evenly spaced values per block
  fp8 = 4,   // e4m3 times a scale per block
  bf16 = 5,  // the upper half of an f32
  f16 = 6,   // IEEE 754's binary16: beyond 65504 lies infinity
};

// Of u8, i8 and i4: which values the codes stand for.
enum class QuantizationScheme : std::uint8_t {
  min_max = 0,     // from the block's least to its greatest value
  zero_point = 1,  // likewise, but the range has 0 in it, and one code is exactly 0
};

enum class QuantizationRounding : std::uint8_t {
  nearest = 0,     // ties to even
  stochastic = 1,  // up with the probability that keeps the mean
};

struct Quantization {
  QuantizedFormat format = QuantizedFormat::none;
  QuantizationScheme scheme = QuantizationScheme::min_max;
  QuantizationRounding rounding = QuantizationRounding::nearest;
  // Elements that share a scale: a power of two from 32 to 4096. Not of bf16 and f16.
  std::uint32_t block = 256;
  // Of stochastic rounding; members of an op may have different ones.
  std::uint64_t seed = 0;
  // NaN and infinities in the input come out where f32 would give them; otherwise they are an error.
  bool pass_non_finite = false;

  bool operator==(const Quantization&) const = default;
};

}  // namespace pccl
