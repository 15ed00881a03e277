#include "quantize/special_blocks.h"

#include <algorithm>
#include <limits>

#include "quantize/minifloat.h"

namespace pccl {
namespace {

struct Extent {
  float min = 0;
  float max = 0;
};

// Of the finite values, 0 if there is none.
Extent finite_extent(const BlockInput& input) {
  Extent extent{std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()};
  for (std::size_t i = 0; i < input.count; ++i) {
    if (magnitude_bits(input.from[i]) >= infinity_bits) continue;
    extent.min = std::min(extent.min, input.from[i]);
    extent.max = std::max(extent.max, input.from[i]);
  }
  return extent.min <= extent.max ? Extent{extent.min + 0.0f, extent.max + 0.0f} : Extent{};
}

bool is_stochastic(const BlockInput& input) {
  return input.quantization.rounding == QuantizationRounding::stochastic;
}

}  // namespace

AffineBlock encode_special_affine(const BlockInput& input, std::uint32_t levels, std::uint8_t* codes) {
  const Extent extent = finite_extent(input);
  const std::uint32_t top = levels - special_codes;
  const AffineBlock block = fit_affine(input.quantization, top, extent.min, extent.max);
  const AffineEncoder encoder(block);
  for (std::size_t i = 0; i < input.count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(input.from[i]);
    const std::uint32_t magnitude = bits & magnitude_mask;
    std::uint32_t code = 0;
    if (magnitude >= infinity_bits) {
      code = magnitude > infinity_bits ? levels : bits == infinity_bits ? levels - 1 : levels - 2;
    } else if (is_stochastic(input)) {
      const auto index = static_cast<std::uint32_t>(i);
      code = rounded_by(Noise::fraction(input.noise.bits(index)), encoder.place(input.from[i]), encoder.levels);
    } else {
      code = rounded_to_nearest(encoder.place(input.from[i]));
    }
    codes[i] = static_cast<std::uint8_t>(code);
  }
  return block;
}

void decode_special_affine(const AffineBlock& block, const std::uint8_t* codes, std::size_t count, float* into) {
  const AffineDecoder decoder(block);
  const auto top = static_cast<std::uint32_t>(block.levels);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t code = codes[i];
    into[i] = code <= top       ? decoder.value(static_cast<float>(code))
              : code == top + 1 ? -infinity
              : code == top + 2 ? infinity
                                : std::bit_cast<float>(quiet_nan_bits);
  }
}

float encode_special_fp8(const BlockInput& input, std::uint8_t* codes) {
  const Extent extent = finite_extent(input);
  const double greatest = std::max(extent.max, -extent.min);
  const float step = step_for(greatest + 0.0, static_cast<std::uint32_t>(e4m3_special_max));
  const AffineEncoder encoder({.step = step});
  for (std::size_t i = 0; i < input.count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(input.from[i]);
    const std::uint32_t magnitude = bits & magnitude_mask;
    const std::uint32_t sign = bits >> 31 << e4m3.sign_shift();
    if (magnitude > infinity_bits) {
      codes[i] = e4m3_nan_code;
      continue;
    }
    std::uint32_t code = e4m3_max_code;
    if (magnitude < infinity_bits) {
      const float scaled = input.from[i] * encoder.scale * encoder.inverse_step;
      const std::uint32_t placed = magnitude_bits(std::min(std::bit_cast<float>(magnitude_bits(scaled)), e4m3_special_max));
      code = is_stochastic(input) ? narrowed_by<e4m3>(input.noise.bits(static_cast<std::uint32_t>(i)), placed)
                                  : narrowed_to_nearest<e4m3>(placed);
    }
    codes[i] = static_cast<std::uint8_t>(code | sign);
  }
  return step;
}

void decode_special_fp8(float step, const std::uint8_t* codes, std::size_t count, float* into) {
  constexpr std::uint32_t sign_bit = 1u << e4m3.sign_shift();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t magnitude = codes[i] & (sign_bit - 1);
    const bool negative = (codes[i] & sign_bit) != 0;
    float value = widened<e4m3>(magnitude) * step;
    if (magnitude == e4m3_max_code) value = std::numeric_limits<float>::infinity();
    if (magnitude == e4m3_nan_code) {
      into[i] = std::bit_cast<float>(quiet_nan_bits);
    } else {
      into[i] = negative ? -value : value;
    }
  }
}

}  // namespace pccl
