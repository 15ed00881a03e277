#include "quantize/layout.h"

namespace pccl {

std::size_t block_header_bytes(QuantizedFormat format) {
  if (is_affine(format)) return 2 * sizeof(float);
  return format == QuantizedFormat::fp8 ? sizeof(float) : 0;
}

std::size_t code_bytes(QuantizedFormat format, std::size_t elements) {
  if (format == QuantizedFormat::i4) return elements / 2 + elements % 2;
  return is_cast(format) ? 2 * elements : elements;
}

std::uint64_t quantized_bytes(const Quantization& quantization, std::uint64_t elements) {
  const QuantizedFormat format = quantization.format;
  const std::uint32_t block = quantization.block;
  const std::uint64_t rest = elements % block;
  const std::uint64_t whole = elements / block * (block_header_bytes(format) + code_bytes(format, block));
  return whole + (rest == 0 ? 0 : block_header_bytes(format) + code_bytes(format, rest));
}

}  // namespace pccl
