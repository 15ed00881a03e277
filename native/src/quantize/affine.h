// The arithmetic of u8, i8 and i4 on one element, and of a block's header. Vector kernels (affine_kernels.cc) do the
// same operations, each rounded on its own, and so give the same bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "pccl/quantization.h"
#include "quantize/noise.h"

namespace pccl {

// A block's values are offset + (code - zero_point) · step, code = 0 … levels.
struct AffineBlock {
  float offset = 0;
  float zero_point = 0;
  float step = 0;
  float levels = 0;
};

// For so many steps to make up a range: rounded up, so that they reach from end to end also where a step has few bits.
float step_for(double range, std::uint32_t levels);
// The codes 0 … levels for values from min to max, both finite, a zero of which is +0.
AffineBlock fit_affine(const Quantization& quantization, std::uint32_t levels, float min, float max);

// 1 / step would overflow for tiny steps, and a difference of huge values too. So all is scaled by a power of two,
// which is exact but for what is far too small for the step to see, and makes the step a number from 1 to 2.
struct AffineEncoder {
  explicit AffineEncoder(const AffineBlock& block);

  // The code before it is rounded.
  float place(float value) const {
    const float place = (value * scale - scaled_offset) * inverse_step + zero_point;
    return std::min(std::max(place, 0.0f), levels);
  }

  float scale = 1;
  float scaled_offset = 0;
  float inverse_step = 0;
  float zero_point = 0;
  float levels = 0;
};

// A range may be wider than the greatest number. Then half of the values are computed, and doubled.
struct AffineDecoder {
  explicit AffineDecoder(const AffineBlock& block);

  float value(float code) const {
    const float value = (code - zero_point) * step + offset;
    return std::min(std::max(value, -limit), limit) * factor;
  }

  float zero_point = 0;
  float step = 0;
  float offset = 0;
  float limit = 0;
  float factor = 1;
};

// Added to a number from 0 to 255, it leaves that number, rounded to nearest, in the sum's last byte.
inline constexpr float rounding_number = 0x1p23f;

inline std::uint32_t rounded_to_nearest(float place) {
  return std::bit_cast<std::uint32_t>(place + rounding_number) & 0xff;
}
inline std::uint32_t rounded_by(float noise, float place, float levels) {
  return static_cast<std::uint32_t>(std::min(place + noise, levels));
}

}  // namespace pccl
