// What is to be known of quantizations without computing with them.
#pragma once

#include <cstdint>

#include "pccl/quantization.h"

namespace pccl {

inline constexpr std::uint32_t quantization_block_min = 32;
inline constexpr std::uint32_t quantization_block_max = 4096;
inline constexpr std::uint32_t quantization_block_default = Quantization{}.block;

// Whether a number from outside is one of them, `none` not among them.
constexpr bool is_quantized_format(std::uint8_t number) {
  return number >= static_cast<std::uint8_t>(QuantizedFormat::u8) &&
         number <= static_cast<std::uint8_t>(QuantizedFormat::f16);
}
const char* quantized_format_name(QuantizedFormat format);

// u8, i8 and i4.
constexpr bool is_affine(QuantizedFormat format) {
  return format == QuantizedFormat::u8 || format == QuantizedFormat::i8 || format == QuantizedFormat::i4;
}
// bf16 and f16.
constexpr bool is_cast(QuantizedFormat format) {
  return format == QuantizedFormat::bf16 || format == QuantizedFormat::f16;
}

// What is wrong with it, or null. A scheme or a block where the format has none must be the default.
const char* quantization_fault(const Quantization& quantization);

}  // namespace pccl
