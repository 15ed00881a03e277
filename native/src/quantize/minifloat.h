// Floating-point numbers of 8 and 16 bits on one element. Vector kernels (minifloat_kernels.cc) do the same.
#pragma once

#include <bit>
#include <cstdint>

#include "quantize/noise.h"

namespace pccl {

// `mantissa` bits below `exponent` bits; as IEEE 754 has it but for what the highest codes mean.
struct MinifloatFormat {
  std::uint32_t exponent = 0;
  std::uint32_t mantissa = 0;

  constexpr std::uint32_t bias() const { return (1u << (exponent - 1)) - 1; }
  constexpr std::uint32_t dropped() const { return 23 - mantissa; }
  // Behind exponent and mantissa.
  constexpr std::uint32_t sign_shift() const { return exponent + mantissa; }
  // What the exponent of an f32 is ahead.
  constexpr std::uint32_t rebias() const { return (127 - bias()) << mantissa; }
  constexpr float power(int of_two) const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(of_two + 127) << 23);
  }
  constexpr float least_normal() const { return power(1 - static_cast<int>(bias())); }
  constexpr float least() const { return power(1 - static_cast<int>(bias()) - static_cast<int>(mantissa)); }
  // A number whose last bit is worth least().
  constexpr float beside() const { return power(1 - static_cast<int>(bias()) + static_cast<int>(dropped())); }
  // Exponent and mantissa where an f32 has them are the number divided by this.
  constexpr float widening() const { return power(127 - static_cast<int>(bias())); }
};

inline constexpr MinifloatFormat e4m3 = {4, 3};
inline constexpr MinifloatFormat binary16 = {5, 10};
// Its exponent is that of an f32, so it is an f32's upper half.
inline constexpr MinifloatFormat brain16 = {8, 7};

// Of e4m3, whose highest code is the one NaN; no code is an infinity.
inline constexpr float e4m3_max = 448;
inline constexpr std::uint32_t e4m3_max_code = 0x7e;
inline constexpr std::uint32_t e4m3_nan_code = 0x7f;
// In a block with infinities the next smaller one is the greatest number.
inline constexpr float e4m3_special_max = 416;

// The code of a magnitude (the sign is clear) that the format's exponents reach, or that rounds to the one behind.
// Nearest, ties to even; `noise`: 32 random bits, and the mean is kept.
template <MinifloatFormat format>
constexpr std::uint32_t narrowed_to_nearest(std::uint32_t magnitude) {
  const float value = std::bit_cast<float>(magnitude);
  if constexpr (format.rebias() != 0) {
    if (value < format.least_normal()) {
      return std::bit_cast<std::uint32_t>(value + format.beside()) - std::bit_cast<std::uint32_t>(format.beside());
    }
  }
  const std::uint32_t odd = (magnitude >> format.dropped()) & 1;
  const std::uint32_t half = (1u << (format.dropped() - 1)) - 1;
  return ((magnitude + odd + half) >> format.dropped()) - format.rebias();
}

template <MinifloatFormat format>
constexpr std::uint32_t narrowed_by(std::uint32_t noise, std::uint32_t magnitude) {
  const float value = std::bit_cast<float>(magnitude);
  if constexpr (format.rebias() != 0) {
    if (value < format.least_normal()) {
      return static_cast<std::uint32_t>(value * (1 / format.least()) + Noise::fraction(noise));
    }
  }
  return ((magnitude + (noise >> (32 - format.dropped()))) >> format.dropped()) - format.rebias();
}

// The number of a code without its sign. What the format's highest codes mean is for the caller to know.
template <MinifloatFormat format>
constexpr float widened(std::uint32_t magnitude_code) {
  return std::bit_cast<float>(magnitude_code << format.dropped()) * format.widening();
}

}  // namespace pccl
