// u8, i8 and i4, block by block.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/affine_kernels.cc"
#include <hwy/foreach_target.h>
//
#include <cmath>

#include <hwy/highway.h>
#include "base/little_endian.h"
#include "quantize/affine.h"
#include "quantize/kernels.h"
#include "quantize/lanes-inl.h"
#include "quantize/layout.h"

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace {

std::uint32_t levels_of(QuantizedFormat format) { return format == QuantizedFormat::i4 ? 15 : 255; }

// Codes of i8 differ in their highest bit.
void flip(std::uint8_t* codes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) codes[i] ^= 0x80;
}

void pack(const std::uint8_t* codes, std::size_t count, std::uint8_t* into) {
  const std::size_t half = count / 2;
  const std::size_t first = count - half;
  for (std::size_t i = 0; i < half; ++i) into[i] = static_cast<std::uint8_t>(codes[i] | codes[first + i] << 4);
  if (first > half) into[half] = codes[half];
}

void unpack(const std::uint8_t* from, std::size_t count, std::uint8_t* codes) {
  const std::size_t half = count / 2;
  const std::size_t first = count - half;
  for (std::size_t i = 0; i < first; ++i) codes[i] = from[i] & 15;
  for (std::size_t i = 0; i < half; ++i) codes[first + i] = from[i] >> 4;
}

void find_codes(const BlockInput& input, const AffineBlock& block, std::uint8_t* codes) {
  const Floats d;
  const Words words;
  const AffineEncoder encoder(block);
  const auto place = [&](FloatLanes value) HWY_ATTR {
    const auto scaled = hn::Sub(hn::Mul(value, hn::Set(d, encoder.scale)), hn::Set(d, encoder.scaled_offset));
    const auto code = hn::Add(hn::Mul(scaled, hn::Set(d, encoder.inverse_step)), hn::Set(d, encoder.zero_point));
    return hn::Min(hn::Max(code, hn::Zero(d)), hn::Set(d, encoder.levels));
  };
  const auto load = [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); };
  const auto store = [&](WordLanes lanes, std::uint8_t* into) HWY_ATTR { store_codes(lanes, into); };
  if (input.quantization.rounding == QuantizationRounding::nearest) {
    const auto nearest = [&](FloatLanes value) HWY_ATTR {
      const auto rounded = hn::Add(place(value), hn::Set(d, rounding_number));
      return hn::And(hn::BitCast(words, rounded), hn::Set(words, 0xffu));
    };
    return walk(input.from, codes, input.count, load, nearest, store);
  }
  NoiseLanes noise(input.noise);
  const auto stochastic = [&](FloatLanes value) HWY_ATTR {
    const auto above = hn::Add(place(value), NoiseLanes::fraction(noise.next()));
    return hn::BitCast(words, hn::ConvertTo(Ints(), hn::Min(above, hn::Set(d, encoder.levels))));
  };
  walk(input.from, codes, input.count, load, stochastic, store);
}

void encode(const EncodeJob& job) {
  const auto format = job.quantization.format;
  const std::size_t header = block_header_bytes(format);
  const std::uint32_t levels = levels_of(format);
  std::uint8_t temporary[quantization_block_max];
  std::uint8_t* into = job.into;
  for (std::size_t begin = 0; begin < job.count; begin += job.quantization.block) {
    const std::size_t count = std::min<std::size_t>(job.quantization.block, job.count - begin);
    const Noise noise(job.quantization.seed, job.stream, job.first_element + begin);
    const BlockInput input{job.quantization, noise, job.from + begin, count};
    std::uint8_t* const codes = format == QuantizedFormat::i4 ? temporary : into + header;
    const Extent extent = extent_of(input.from, count);
    AffineBlock block;
    if (extent.magnitude < infinity_bits) {
      block = fit_affine(job.quantization, levels, extent.min, extent.max);
      find_codes(input, block, codes);
    } else {
      block = encode_special_affine(input, levels, codes);
      block.step = -block.step;
    }
    store_le(into, job.quantization.scheme == QuantizationScheme::min_max ? block.offset : block.zero_point);
    store_le(into + sizeof(float), block.step);
    if (format == QuantizedFormat::i4) pack(temporary, count, into + header);
    if (format == QuantizedFormat::i8) flip(codes, count);
    into += header + code_bytes(format, count);
  }
}

void find_values(const AffineBlock& block, const std::uint8_t* codes, std::size_t count, float* into) {
  const Floats d;
  const AffineDecoder decoder(block);
  const auto value = [&](WordLanes code) HWY_ATTR {
    const auto steps = hn::Sub(hn::ConvertTo(d, hn::BitCast(Ints(), code)), hn::Set(d, decoder.zero_point));
    const auto sum = hn::Add(hn::Mul(steps, hn::Set(d, decoder.step)), hn::Set(d, decoder.offset));
    const auto limited = hn::Min(hn::Max(sum, hn::Set(d, -decoder.limit)), hn::Set(d, decoder.limit));
    return hn::Mul(limited, hn::Set(d, decoder.factor));
  };
  const auto load = [&](const std::uint8_t* from) HWY_ATTR { return load_codes(from); };
  const auto store = [&](FloatLanes lanes, float* to) HWY_ATTR { hn::StoreU(lanes, d, to); };
  walk(codes, into, count, load, value, store);
}

bool decode(const DecodeJob& job) {
  const auto format = job.quantization.format;
  const std::size_t header = block_header_bytes(format);
  std::uint8_t temporary[quantization_block_max];
  const std::uint8_t* from = job.from;
  for (std::size_t begin = 0; begin < job.count; begin += job.quantization.block) {
    const std::size_t count = std::min<std::size_t>(job.quantization.block, job.count - begin);
    const auto a = load_le<float>(from);
    const auto signed_step = load_le<float>(from + sizeof(float));
    const bool is_special = std::signbit(signed_step);
    AffineBlock block{.step = std::fabs(signed_step)};
    block.levels = static_cast<float>(levels_of(format) - (is_special ? special_codes : 0));
    const bool min_max = job.quantization.scheme == QuantizationScheme::min_max;
    (min_max ? block.offset : block.zero_point) = a;
    if (!std::isfinite(a) || !std::isfinite(block.step)) return false;
    if (!min_max && (a < 0 || a > block.levels || a != std::trunc(a))) return false;
    const std::uint8_t* codes = from + header;
    if (format == QuantizedFormat::i4) {
      unpack(codes, count, temporary);
      codes = temporary;
    } else if (format == QuantizedFormat::i8) {
      std::copy_n(codes, count, temporary);
      flip(temporary, count);
      codes = temporary;
    }
    (is_special ? decode_special_affine : find_values)(block, codes, count, job.into + begin);
    from += header + code_bytes(format, count);
  }
  return true;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl {

HWY_EXPORT(encode);
HWY_EXPORT(decode);

void encode_affine(const EncodeJob& job) { HWY_DYNAMIC_DISPATCH(encode)(job); }
bool decode_affine(const DecodeJob& job) { return HWY_DYNAMIC_DISPATCH(decode)(job); }

}  // namespace pccl
#endif
