// Blocks that have NaN or infinities in them. They are rare, so this is plain code for all CPUs.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "pccl/quantization.h"
#include "quantize/affine.h"
#include "quantize/noise.h"

namespace pccl {

inline constexpr std::uint32_t infinity_bits = 0x7f800000;
inline constexpr std::uint32_t quiet_nan_bits = 0x7fc00000;
inline constexpr std::uint32_t magnitude_mask = 0x7fffffff;
// Codes of affine blocks that stand for -∞, +∞ and NaN.
inline constexpr std::uint32_t special_codes = 3;

inline std::uint32_t magnitude_bits(float value) { return std::bit_cast<std::uint32_t>(value) & magnitude_mask; }

struct BlockInput {
  const Quantization& quantization;
  const Noise& noise;
  const float* from = nullptr;
  std::size_t count = 0;
};

// Writes a code of 0 … levels per element, and gives the block, its step still positive.
AffineBlock encode_special_affine(const BlockInput& input, std::uint32_t levels, std::uint8_t* codes);
void decode_special_affine(const AffineBlock& block, const std::uint8_t* codes, std::size_t count, float* into);
// The same for fp8; gives the step.
float encode_special_fp8(const BlockInput& input, std::uint8_t* codes);
void decode_special_fp8(float step, const std::uint8_t* codes, std::size_t count, float* into);

}  // namespace pccl
