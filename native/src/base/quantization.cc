#include "base/quantization.h"

#include <bit>

namespace pccl {

const char* quantized_format_name(QuantizedFormat format) {
  switch (format) {
    case QuantizedFormat::none:
      return "none";
    case QuantizedFormat::u8:
      return "u8";
    case QuantizedFormat::i8:
      return "i8";
    case QuantizedFormat::i4:
      return "i4";
    case QuantizedFormat::fp8:
      return "fp8";
    case QuantizedFormat::bf16:
      return "bf16";
    case QuantizedFormat::f16:
      return "f16";
  }
  return "unknown";
}

const char* quantization_fault(const Quantization& quantization) {
  const QuantizedFormat format = quantization.format;
  const std::uint32_t block = quantization.block;
  if (!is_quantized_format(static_cast<std::uint8_t>(format))) return "unknown format";
  if (quantization.scheme > QuantizationScheme::zero_point) return "unknown scheme";
  if (quantization.rounding > QuantizationRounding::stochastic) return "unknown rounding";
  if (quantization.scheme != QuantizationScheme::min_max && !is_affine(format)) {
    return "a scheme for a format that has none";
  }
  if (is_cast(format)) {
    return block == quantization_block_default ? nullptr : "a block size for a format that has no blocks";
  }
  const bool fits = block >= quantization_block_min && block <= quantization_block_max && std::has_single_bit(block);
  return fits ? nullptr : "the block size must be a power of two from 32 to 4096";
}

}  // namespace pccl
