#include "quantize/affine.h"

#include <cmath>

namespace pccl {

AffineBlock fit_affine(QuantizationScheme scheme, std::uint32_t levels, float min, float max) {
  AffineBlock block;
  block.levels = static_cast<float>(levels);
  if (scheme == QuantizationScheme::zero_point) {
    min = std::min(min, 0.0f);
    max = std::max(max, 0.0f);
  }
  const double range = static_cast<double>(max) - static_cast<double>(min);
  // Rounded up, so that the codes reach from end to end, also where a step has few bits.
  block.step = static_cast<float>(range / levels);
  if (static_cast<double>(block.step) * levels < range) {
    block.step = std::nextafter(block.step, std::numeric_limits<float>::infinity());
  }
  if (scheme == QuantizationScheme::min_max) {
    block.offset = min;
  } else if (block.step > 0) {
    const double zero_point = std::nearbyint(-static_cast<double>(min) / static_cast<double>(block.step));
    block.zero_point = static_cast<float>(std::min(zero_point, static_cast<double>(levels)));
  }
  return block;
}

AffineEncoder::AffineEncoder(const AffineBlock& block) : zero_point(block.zero_point), levels(block.levels) {
  if (block.step == 0) return;  // all values are the offset: scale and inverse leave a place of 0
  scale = std::ldexp(1.0f, -std::max(std::ilogb(block.step), -126));
  scaled_offset = block.offset * scale;
  inverse_step = 1.0f / (block.step * scale);
}

AffineDecoder::AffineDecoder(const AffineBlock& block) : zero_point(block.zero_point) {
  constexpr float greatest = std::numeric_limits<float>::max();
  const bool halves = static_cast<double>(block.step) * static_cast<double>(block.levels) > static_cast<double>(greatest);
  const float half = halves ? 0.5f : 1.0f;
  step = block.step * half;
  offset = block.offset * half;
  limit = greatest * half;
  factor = halves ? 2.0f : 1.0f;
}

}  // namespace pccl
