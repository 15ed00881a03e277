#include "quantize/quantize.h"

#include "quantize/kernels.h"
#include "base/quantization.h"
#include "quantize/layout.h"

namespace pccl {

void quantize(const Quantization& quantization, QuantizationStream stream, std::uint64_t first_element,
              std::span<const float> from, std::uint8_t* into) {
  const EncodeJob job{quantization, stream, first_element, from.data(), from.size(), into};
  (is_affine(quantization.format) ? encode_affine : encode_minifloats)(job);
}

bool dequantize(const Quantization& quantization, std::span<const std::uint8_t> from, std::span<float> into) {
  if (from.size() != quantized_bytes(quantization, into.size())) return false;
  const DecodeJob job{quantization, from.data(), into.size(), into.data()};
  return (is_affine(quantization.format) ? decode_affine : decode_minifloats)(job);
}

bool stays_finite(const Quantization& quantization, std::span<const float> values) {
  // The least magnitudes that can become an infinity.
  const bool nearest = quantization.rounding == QuantizationRounding::nearest;
  std::uint32_t limit = 0x7f800000;
  if (quantization.format == QuantizedFormat::bf16) limit = nearest ? 0x7f7f8000 : 0x7f7f0001;
  if (quantization.format == QuantizedFormat::f16) limit = nearest ? 0x477ff000 : 0x477fe001;
  return greatest_magnitude(values.data(), values.size()) < limit;
}

}  // namespace pccl
