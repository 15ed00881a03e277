// Quantization of arrays, in every version that this CPU can run, against references that go element by element: the
// affine formats' own arithmetic in plain code, and minifloats by ldexp and nearbyint. Then the errors that
// docs/quantization.md promises, on data of several kinds; and the decoder on bytes that nobody should send.
#include "quantize/quantize.h"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/little_endian.h"
#include "every_target.h"
#include "quantize/affine.h"
#include "quantize/layout.h"
#include "quantize/noise.h"
#include "quantized_data.h"

namespace pccl::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

std::vector<std::uint8_t> encoded(const Quantization& quantization, const std::vector<float>& values,
                                  std::uint64_t stream = 0, std::uint64_t first = 0) {
  std::vector<std::uint8_t> bytes(quantized_bytes(quantization, values.size()));
  quantize(quantization, stream, first, values, bytes.data());
  return bytes;
}

std::vector<float> decoded(const Quantization& quantization, const std::vector<std::uint8_t>& bytes, std::size_t count) {
  std::vector<float> values(count);
  EXPECT_TRUE(dequantize(quantization, bytes, values));
  return values;
}

std::vector<float> round_trip(const Quantization& quantization, const std::vector<float>& values) {
  return decoded(quantization, encoded(quantization, values), values.size());
}

// Every format, scheme and rounding, in blocks of `block` where there are any.
std::vector<Quantization> all_quantizations(std::uint32_t block) {
  std::vector<Quantization> all;
  for (std::uint8_t number = 1; is_quantized_format(number); ++number) {
    for (const auto scheme : {QuantizationScheme::min_max, QuantizationScheme::zero_point}) {
      for (const auto rounding : {QuantizationRounding::nearest, QuantizationRounding::stochastic}) {
        Quantization one{static_cast<QuantizedFormat>(number), scheme, rounding, block, 99, true};
        if (is_cast(one.format)) one.block = quantization_block_default;
        if (quantization_fault(one) == nullptr) all.push_back(one);
      }
    }
  }
  return all;
}

std::string name(const Quantization& quantization) {
  return std::string(quantized_format_name(quantization.format)) +
         (quantization.scheme == QuantizationScheme::zero_point ? " zero point" : "") +
         (quantization.rounding == QuantizationRounding::stochastic ? " stochastic" : "") + " blocks of " +
         std::to_string(quantization.block);
}

// The vector versions against each other, on all kinds of data with NaN and infinities strewn in, at every length up
// to a few blocks.
TEST(Quantize, TheSameBitsOnEveryTarget) {
  for (const std::uint32_t block : {32u, 256u}) {
    for (const Quantization& quantization : all_quantizations(block)) {
      SCOPED_TRACE(name(quantization));
      for (const Data& data : all_data()) {
        std::mt19937 random(5);
        std::vector<float> values = data.make(3 * block + 5, 1);
        for (const bool special : {false, true}) {
          if (special) values[random() % values.size()] = std::vector{infinity, -infinity, not_a_number}[random() % 3];
          for (const std::size_t count : {std::size_t{1}, std::size_t{2}, std::size_t{31}, std::size_t{33}, values.size()}) {
            const std::vector<float> some(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count));
            std::vector<std::uint8_t> expected_bytes;
            std::vector<float> expected;
            on_every_target([&] {
              const auto bytes = encoded(quantization, some, 3, block);
              const auto back = decoded(quantization, bytes, count);
              if (expected_bytes.empty()) {
                expected_bytes = bytes;
                expected = back;
              }
              ASSERT_EQ(bytes, expected_bytes) << data.name << ", " << count << " elements";
              ASSERT_EQ(std::memcmp(back.data(), expected.data(), 4 * count), 0) << data.name;
            });
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

std::vector<std::uint8_t> codes_of(const Quantization& quantization, const std::vector<std::uint8_t>& block,
                                   std::size_t count) {
  const std::vector<std::uint8_t> stored(block.begin() + 8, block.end());
  std::vector<std::uint8_t> codes(count);
  const std::size_t first = (count + 1) / 2;
  for (std::size_t i = 0; i < count; ++i) {
    if (quantization.format == QuantizedFormat::i4) {
      codes[i] = i < first ? stored[i] & 15 : stored[i - first] >> 4;
    } else {
      codes[i] = static_cast<std::uint8_t>(stored[i] + (quantization.format == QuantizedFormat::i8 ? 128 : 0));
    }
  }
  return codes;
}

// One block: header and codes are what the arithmetic on one element gives, and so are the values.
TEST(Quantize, AffineBlocksAreWhatTheyAreSaidToBe) {
  for (const Quantization& quantization : all_quantizations(256)) {
    if (!is_affine(quantization.format)) continue;
    const std::uint32_t levels = quantization.format == QuantizedFormat::i4 ? 15 : 255;
    for (const Data& data : all_data()) {
      SCOPED_TRACE(name(quantization) + " of " + data.name);
      const std::vector<float> values = data.make(255, 2);
      const auto [min, max] = std::minmax_element(values.begin(), values.end());
      const AffineBlock block = fit_affine(quantization, levels, *min + 0.0f, *max + 0.0f);
      const Noise noise(quantization.seed, 7, 512);
      std::vector<std::uint8_t> codes(values.size());
      std::vector<float> expected(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float place = AffineEncoder(block).place(values[i]);
        const auto code = quantization.rounding == QuantizationRounding::nearest
                              ? static_cast<float>(std::nearbyint(place))
                              : std::floor(std::min(place + Noise::fraction(noise.bits(static_cast<std::uint32_t>(i))),
                                                    static_cast<float>(levels)));
        codes[i] = static_cast<std::uint8_t>(code);
        expected[i] = AffineDecoder(block).value(code);
      }
      on_every_target([&] {
        const auto bytes = encoded(quantization, values, 7, 512);
        const bool min_max = quantization.scheme == QuantizationScheme::min_max;
        ASSERT_EQ(load_le<float>(bytes.data()), min_max ? block.offset : block.zero_point);
        ASSERT_EQ(load_le<float>(bytes.data() + 4), block.step);
        ASSERT_EQ(codes_of(quantization, bytes, values.size()), codes);
        ASSERT_EQ(decoded(quantization, bytes, values.size()), expected);
      });
    }
  }
}

struct Minifloat {
  int exponent_bits;
  int mantissa_bits;
};

// The nearest number of the format to a value that it has room for, ties to even; as its code, without a sign.
std::uint32_t nearest_code(const Minifloat& format, double value) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const int exponent = value == 0 ? 1 - bias : std::max(std::ilogb(value), 1 - bias);
  const double rounded = std::nearbyint(std::ldexp(value, format.mantissa_bits - exponent));
  return static_cast<std::uint32_t>((exponent + bias - 1) << format.mantissa_bits) + static_cast<std::uint32_t>(rounded);
}

TEST(Quantize, CastsRoundToNearest) {
  const auto check = [](QuantizedFormat format, const Minifloat& shape, std::uint32_t infinity_code) {
    std::mt19937 random(11);
    std::vector<float> values;
    for (int i = 0; i < 50'000; ++i) values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
    for (int i = 0; i < 50'000; ++i) values.push_back(std::ldexp(1 + static_cast<float>(random() % 4096) / 4096, static_cast<int>(random() % 40) - 26));
    std::vector<std::uint8_t> expected;
    for (const float value : values) {
      const std::uint32_t sign = std::signbit(value) ? 0x8000 : 0;
      std::uint32_t code = infinity_code | 1u << (shape.mantissa_bits - 1);
      if (!std::isnan(value)) {
        code = std::isinf(value) ? infinity_code : std::min(nearest_code(shape, std::fabs(static_cast<double>(value))), infinity_code);
        code |= sign;
      }
      expected.push_back(static_cast<std::uint8_t>(code));
      expected.push_back(static_cast<std::uint8_t>(code >> 8));
    }
    on_every_target([&] { ASSERT_EQ(encoded({.format = format}, values), expected); });
  };
  check(QuantizedFormat::bf16, {8, 7}, 0x7f80);
  check(QuantizedFormat::f16, {5, 10}, 0x7c00);
}

// A block that has 448 in it has a step of 1.
TEST(Quantize, Fp8RoundsToNearestAndReadsEveryCode) {
  const Quantization fp8{.format = QuantizedFormat::fp8};
  std::mt19937 random(12);
  for (int repeat = 0; repeat < 500; ++repeat) {
    std::vector<float> values = {448};
    std::vector<std::uint8_t> expected = {0, 0, 0x80, 0x3f, 0x7e};
    while (values.size() < 256) {
      const float magnitude = std::ldexp(1 + static_cast<float>(random() % 256) / 256, static_cast<int>(random() % 22) - 14);
      if (magnitude > 448) continue;
      const bool negative = random() % 2 == 1;
      values.push_back(negative ? -magnitude : magnitude);
      expected.push_back(static_cast<std::uint8_t>(nearest_code({4, 3}, static_cast<double>(magnitude)) | (negative ? 0x80 : 0)));
    }
    on_every_target([&] { ASSERT_EQ(encoded(fp8, values), expected); });
    if (HasFailure()) return;
  }
  std::vector<std::uint8_t> bytes = {0, 0, 0, 0x40};
  std::vector<float> expected;
  for (std::uint32_t code = 0; code < 254; ++code) {
    if ((code & 0x7f) == 0x7f) continue;
    bytes.push_back(static_cast<std::uint8_t>(code));
    const auto exponent = static_cast<int>(code >> 3 & 15);
    const auto mantissa = static_cast<float>(code & 7);
    const float number = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    expected.push_back(2 * (code & 0x80 ? -number : number));
  }
  on_every_target([&] { ASSERT_EQ(decoded(fp8, bytes, expected.size()), expected); });
}

// The bounds of docs/quantization.md, for each element of each kind of data.
TEST(Quantize, ErrorsAreWithinTheirBounds) {
  for (const std::uint32_t block : {32u, 256u, 4096u}) {
    for (const Quantization& quantization : all_quantizations(block)) {
      for (const Data& data : all_data()) {
        SCOPED_TRACE(name(quantization) + " of " + data.name);
        const std::vector<float> values = data.make(10'000, 3);
        const std::vector<float> back = round_trip(quantization, values);
        const std::vector<Extent> blocks = extents_of(values, quantization.block);
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (quantization.format == QuantizedFormat::f16 && std::fabs(values[i]) > 65504) continue;
          const double error = std::fabs(static_cast<double>(back[i]) - static_cast<double>(values[i]));
          ASSERT_LE(error, error_bound(quantization, blocks[i / quantization.block], values[i]))
              << values[i] << " became " << back[i];
        }
      }
    }
  }
}

TEST(Quantize, ConstantsAndZerosAreExact) {
  for (const float constant : {0.0f, 1.0f, -3.25f, 1e-44f, -3e38f}) {
    const std::vector<float> values(300, constant);
    EXPECT_EQ(round_trip({.format = QuantizedFormat::u8}, values), values);
    EXPECT_EQ(round_trip({.format = QuantizedFormat::i4}, values), values);
  }
  std::vector<float> values = find_data("gaussian").make(4096, 4);
  for (std::size_t i = 0; i < values.size(); i += 3) values[i] = 0;
  for (const auto format : {QuantizedFormat::u8, QuantizedFormat::i4}) {
    const auto back = round_trip({.format = format, .scheme = QuantizationScheme::zero_point}, values);
    for (std::size_t i = 0; i < values.size(); i += 3) ASSERT_EQ(back[i], 0);
  }
}

// What has been quantized keeps its codes.
TEST(Quantize, DecodedValuesKeepTheirCodes) {
  for (const Quantization& quantization : all_quantizations(256)) {
    if (quantization.rounding == QuantizationRounding::stochastic) continue;
    // Of huge values decoding may end at the greatest number, which has another code.
    for (const Data& data : all_data()) {
      if (data.name == "huge" || data.name == "tiny") continue;
      SCOPED_TRACE(name(quantization) + " of " + data.name);
      const auto bytes = encoded(quantization, data.make(1000, 5));
      const auto again = encoded(quantization, decoded(quantization, bytes, 1000));
      // A step may change by its last bit.
      const std::size_t header = block_header_bytes(quantization.format);
      const std::size_t block_bytes = header + code_bytes(quantization.format, 256);
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i % block_bytes < header) continue;
        ASSERT_EQ(again[i], bytes[i]) << i;
      }
    }
  }
}

TEST(Quantize, NanAndInfinityComeOutWhereTheyWentIn) {
  for (const Quantization& quantization : all_quantizations(64)) {
    SCOPED_TRACE(name(quantization));
    std::vector<float> values = find_data("gaussian").make(640, 6);
    values[3] = not_a_number;
    values[70] = infinity;
    values[71] = -infinity;
    for (std::size_t i = 128; i < 192; ++i) values[i] = i % 2 == 0 ? -infinity : not_a_number;
    const std::vector<float> back = round_trip(quantization, values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(back[i]), 0x7fc00000u) << i;
      } else if (std::isinf(values[i])) {
        ASSERT_EQ(back[i], values[i]) << i;
      } else {
        ASSERT_NEAR(back[i], values[i], quantization.format == QuantizedFormat::i4 ? 0.9 : 0.3) << i;
      }
    }
    EXPECT_FALSE(stays_finite(quantization, values));
    EXPECT_FALSE(stays_finite(quantization, std::vector{1.0f, infinity}));
    EXPECT_TRUE(stays_finite(quantization, std::vector{1.0f, -65504.0f}));
    EXPECT_EQ(stays_finite(quantization, std::vector{65520.0f}), quantization.format != QuantizedFormat::f16);
    EXPECT_EQ(stays_finite(quantization, std::vector{std::numeric_limits<float>::max()}), !is_cast(quantization.format));
  }
}

// The mean of many roundings with different seeds is the element; and the same seed gives the same bytes, whatever
// part of an array is quantized at a time.
TEST(Quantize, StochasticRoundingKeepsTheMean) {
  for (Quantization quantization : all_quantizations(32)) {
    if (quantization.rounding == QuantizationRounding::nearest) continue;
    SCOPED_TRACE(name(quantization));
    const std::vector<float> values = find_data("gaussian").make(256, 8);
    constexpr int rounds = 4000;
    std::vector<double> sums(values.size());
    std::vector<double> squares(values.size());
    for (int seed = 0; seed < rounds; ++seed) {
      quantization.seed = static_cast<std::uint64_t>(seed);
      const std::vector<float> back = round_trip(quantization, values);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double error = static_cast<double>(back[i]) - static_cast<double>(values[i]);
        sums[i] += error;
        squares[i] += error * error;
      }
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      // Six standard deviations of the mean, and what rounding of f32 itself may add.
      ASSERT_LE(std::fabs(sums[i] / rounds), 6 * std::sqrt(squares[i]) / rounds + 1e-5) << values[i];
    }
  }
}

TEST(Quantize, PartsOfAnArrayGiveTheBytesOfTheWhole) {
  for (const Quantization& quantization : all_quantizations(32)) {
    SCOPED_TRACE(name(quantization));
    const std::vector<float> values = find_data("heavy-tailed").make(4096 + 700, 9);
    const auto whole = encoded(quantization, values, 4);
    std::vector<std::uint8_t> parts;
    for (std::size_t begin = 0; begin < values.size(); begin += 1024) {
      const std::size_t end = std::min(values.size(), begin + 1024);
      const std::vector<float> part(values.begin() + static_cast<std::ptrdiff_t>(begin),
                                    values.begin() + static_cast<std::ptrdiff_t>(end));
      const auto bytes = encoded(quantization, part, 4, begin);
      parts.insert(parts.end(), bytes.begin(), bytes.end());
    }
    EXPECT_EQ(parts, whole);
    if (quantization.rounding == QuantizationRounding::nearest) continue;
    EXPECT_NE(encoded(quantization, values, 5), whole) << "another stream";
  }
}

// Any bytes of the right length are read, or refused, and nothing is touched beyond the arrays.
TEST(Quantize, DecodesAnyBytes) {
  std::mt19937 random(13);
  int accepted = 0;
  int refused = 0;
  for (const Quantization& quantization : all_quantizations(32)) {
    for (int i = 0; i < 2'000; ++i) {
      const std::size_t count = random() % 100;
      std::vector<std::uint8_t> bytes = encoded(quantization, find_data("gaussian").make(count, static_cast<unsigned>(i)));
      std::vector<float> values(count);
      if (i % 2 == 0) {
        for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
      } else if (count > 0) {
        bytes[random() % bytes.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
      }
      on_every_target([&] { ++(dequantize(quantization, bytes, values) ? accepted : refused); });
      bytes.push_back(0);
      EXPECT_FALSE(dequantize(quantization, bytes, values));
      if (count == 0) continue;
      EXPECT_FALSE(dequantize(quantization, std::span(bytes).first(bytes.size() - 2), values));
    }
  }
  EXPECT_GT(accepted, 10'000);
  EXPECT_GT(refused, 1'000);
  const std::vector<std::uint8_t> no_step = {0, 0, 0, 0, 0, 0, 0xc0, 0x7f, 1};
  const std::vector<std::uint8_t> half_a_zero_point = {0, 0, 0, 0x3f, 0, 0, 0x80, 0x3f, 1};
  std::vector<float> one(1);
  EXPECT_FALSE(dequantize({.format = QuantizedFormat::u8}, no_step, one));
  EXPECT_TRUE(dequantize({.format = QuantizedFormat::u8}, half_a_zero_point, one));
  EXPECT_FALSE(dequantize({.format = QuantizedFormat::u8, .scheme = QuantizationScheme::zero_point}, half_a_zero_point, one));
}

TEST(Quantize, BytesPerElementAreWhatTheyShouldBe) {
  constexpr std::uint64_t count = 1 << 20;
  EXPECT_LE(static_cast<double>(quantized_bytes({.format = QuantizedFormat::u8}, count)), 0.265 * 4 * count);
  EXPECT_LE(static_cast<double>(quantized_bytes({.format = QuantizedFormat::fp8}, count)), 0.265 * 4 * count);
  EXPECT_LE(static_cast<double>(quantized_bytes({.format = QuantizedFormat::i4}, count)), 0.14 * 4 * count);
  EXPECT_EQ(quantized_bytes({.format = QuantizedFormat::bf16}, count), 2 * count);
}

}  // namespace
}  // namespace pccl::test
