#include "quantize/affine.h"

#include <cmath>

namespace pccl {

float step_for(double range, std::uint32_t levels) {
  const auto step = static_cast<float>(range / levels);
  const bool is_short = static_cast<double>(step) * levels < range;
  return is_short ? std::nextafter(step, std::numeric_limits<float>::infinity()) : step;
}

AffineBlock fit_affine(const Quantization& quantization, std::uint32_t levels, float min, float max) {
  AffineBlock block;
  block.levels = static_cast<float>(levels);
  if (quantization.scheme == QuantizationScheme::min_max) {
    block.offset = min;
    block.step = step_for(static_cast<double>(max) - static_cast<double>(min), levels);
    return block;
  }
  // Zero is a code, so where it is in between an end of the range may be up to half a step beyond the last one. That
  // does to round to nearest; to be rounded in both directions it needs one code more.
  const bool covers = quantization.rounding == QuantizationRounding::stochastic && min < 0 && max > 0;
  const double low = std::min(min, 0.0f);
  const double high = std::max(max, 0.0f);
  block.step = step_for(high - low, covers ? levels - 1 : levels);
  if (block.step == 0) return block;
  const double place = -low / static_cast<double>(block.step);
  block.zero_point = static_cast<float>(std::min<double>(covers ? std::ceil(place) : std::nearbyint(place), levels));
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
