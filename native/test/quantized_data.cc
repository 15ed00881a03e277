#include "quantized_data.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/quantization.h"

namespace pccl::test {
namespace {

template <class Distribution>
Data drawn(const char* name, Distribution distribution, std::function<float(float)> shape = [](float x) { return x; }) {
  return {name, [distribution, shape](std::size_t count, unsigned seed) mutable {
            std::mt19937 random(seed);
            Distribution fresh = distribution;
            std::vector<float> values(count);
            for (float& value : values) value = shape(static_cast<float>(fresh(random)));
            return values;
          }};
}

}  // namespace

const std::vector<Data>& all_data() {
  using Normal = std::normal_distribution<float>;
  static const std::vector<Data> all = {
      drawn("gaussian", Normal(0, 1)),
      drawn("heavy-tailed", std::student_t_distribution<float>(2)),
      drawn("all-negative", Normal(0, 1), [](float x) { return -0.5f - std::fabs(x); }),
      drawn("far from zero", Normal(0, 1), [](float x) { return 1e6f + x; }),
      drawn("constant", Normal(0, 1), [](float) { return -2.7182817f; }),
      drawn("tiny", Normal(0, 1), [](float x) { return x * 1e-42f; }),
      drawn("huge", Normal(0, 1), [](float x) { return std::clamp(x, -3.0f, 3.0f) * 2e37f; }),
  };
  return all;
}

const Data& find_data(const std::string& name) {
  return *std::find_if(all_data().begin(), all_data().end(), [&](const Data& data) { return data.name == name; });
}

std::vector<Extent> extents_of(const std::vector<float>& values, std::uint32_t block) {
  std::vector<Extent> extents;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    if (i % block == 0) extents.push_back({value, value});
    extents.back() = {std::min(extents.back().min, value), std::max(extents.back().max, value)};
  }
  return extents;
}

double error_bound(const Quantization& quantization, const Extent& block, float value) {
  const double greatest = std::max(std::fabs(block.min), std::fabs(block.max));
  const double share = quantization.rounding == QuantizationRounding::nearest ? 0.5 : 1;
  // The least subnormal number, to which steps are rounded up, and the roundings of f32 on the way.
  const double least = 0x1p-149;
  const double magnitude = std::fabs(static_cast<double>(value));
  switch (quantization.format) {
    case QuantizedFormat::u8:
    case QuantizedFormat::i8:
    case QuantizedFormat::i4: {
      const bool from_zero = quantization.scheme == QuantizationScheme::zero_point;
      const double low = from_zero ? std::min(0.0, block.min) : block.min;
      const double high = from_zero ? std::max(0.0, block.max) : block.max;
      const bool covers = from_zero && quantization.rounding == QuantizationRounding::stochastic;
      const double levels = (quantization.format == QuantizedFormat::i4 ? 15 : 255) - (covers ? 1 : 0);
      const double step = (high - low) / levels + least;
      return share * 1.0002 * step + 0x1p-22 * greatest + least;
    }
    case QuantizedFormat::fp8:
      return 2 * share * std::max(magnitude * 0x1p-4, (greatest / 448 + least) * 0x1p-10) + 0x1p-22 * greatest + 32 * least;
    case QuantizedFormat::bf16:
      return 2 * share * std::max(magnitude * 0x1p-8, 0x1p-134);
    case QuantizedFormat::f16:
      return 2 * share * std::max(magnitude * 0x1p-11, 0x1p-25);
    case QuantizedFormat::none:
      break;
  }
  return 0;
}

}  // namespace pccl::test
