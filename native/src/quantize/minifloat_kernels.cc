// fp8, block by block, and the casts to bf16 and f16; and the greatest magnitude of an array.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/minifloat_kernels.cc"
#include <hwy/foreach_target.h>
//
#include <cmath>
#include <limits>

#include <hwy/highway.h>
#include "base/little_endian.h"
#include "quantize/affine.h"
#include "quantize/kernels.h"
#include "quantize/lanes-inl.h"
#include "quantize/layout.h"
#include "quantize/minifloat.h"

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace {

// The codes of magnitudes, as narrowed_to_nearest and narrowed_by have them.
template <MinifloatFormat format>
struct ToNearest {
  HWY_INLINE WordLanes next() { return hn::Zero(Words()); }
  HWY_INLINE WordLanes normal(WordLanes magnitude, WordLanes) const {
    const Words words;
    const auto odd = hn::And(hn::ShiftRight<format.dropped()>(magnitude), hn::Set(words, 1u));
    const auto half = hn::Set(words, (1u << (format.dropped() - 1)) - 1);
    return hn::ShiftRight<format.dropped()>(hn::Add(magnitude, hn::Add(odd, half)));
  }
  HWY_INLINE WordLanes subnormal(FloatLanes value, WordLanes) const {
    const Floats d;
    const Words words;
    const auto beside = hn::Set(d, format.beside());
    return hn::Sub(hn::BitCast(words, hn::Add(value, beside)), hn::BitCast(words, beside));
  }
};

template <MinifloatFormat format>
struct ByNoise {
  NoiseLanes noise;

  HWY_INLINE WordLanes next() { return noise.next(); }
  HWY_INLINE WordLanes normal(WordLanes magnitude, WordLanes bits) const {
    return hn::ShiftRight<format.dropped()>(hn::Add(magnitude, hn::ShiftRight<32 - format.dropped()>(bits)));
  }
  HWY_INLINE WordLanes subnormal(FloatLanes value, WordLanes bits) const {
    const auto places = hn::Mul(value, hn::Set(Floats(), 1 / format.least()));
    return hn::BitCast(Words(), hn::ConvertTo(Ints(), hn::Add(places, NoiseLanes::fraction(bits))));
  }
};

template <MinifloatFormat format, class Rounding>
HWY_INLINE WordLanes narrowed(WordLanes magnitude, Rounding& rounding) {
  const Words words;
  const auto bits = rounding.next();
  const auto normal = hn::Sub(rounding.normal(magnitude, bits), hn::Set(words, format.rebias()));
  if constexpr (format.rebias() == 0) {
    return normal;
  } else {
    const Floats d;
    const auto value = hn::BitCast(d, magnitude);
    // What isn't subnormal mustn't overflow the conversion to an integer.
    const auto least_normal = hn::Set(d, format.least_normal());
    const auto is_subnormal = hn::RebindMask(words, hn::Lt(value, least_normal));
    return hn::IfThenElse(is_subnormal, rounding.subnormal(hn::Min(value, least_normal), bits), normal);
  }
}

HWY_INLINE WordLanes magnitude_of(FloatLanes value) {
  return hn::And(hn::BitCast(Words(), value), hn::Set(Words(), magnitude_mask));
}
template <MinifloatFormat format>
HWY_INLINE WordLanes sign_of(FloatLanes value) {
  return hn::ShiftLeft<format.sign_shift()>(hn::ShiftRight<31>(hn::BitCast(Words(), value)));
}

// bf16 and f16, with all values.
template <MinifloatFormat format, class Rounding>
void cast(const BlockInput& input, std::uint16_t* codes, Rounding rounding) {
  const Words words;
  const auto code_of = [&](FloatLanes value) HWY_ATTR {
    const auto magnitude = magnitude_of(value);
    const auto is_nan = hn::Gt(hn::BitCast(Ints(), magnitude), hn::Set(Ints(), static_cast<std::int32_t>(infinity_bits)));
    // What is too large for f16 becomes 2^16, whose code is infinity's.
    const auto reach = format.rebias() == 0 ? magnitude : hn::Min(magnitude, hn::Set(words, 0x47800000u));
    const auto code = hn::Or(narrowed<format>(reach, rounding), sign_of<format>(value));
    const std::uint32_t nan = ((1u << format.exponent) - 1) << format.mantissa | 1u << (format.mantissa - 1);
    return hn::IfThenElse(hn::RebindMask(words, is_nan), hn::Set(words, nan), code);
  };
  const auto load = [&](const float* from) HWY_ATTR { return hn::LoadU(Floats(), from); };
  const auto store = [&](WordLanes lanes, std::uint16_t* into) HWY_ATTR { store_codes(lanes, into); };
  walk(input.from, codes, input.count, load, code_of, store);
}

template <class Rounding>
void find_fp8(const BlockInput& input, float step, std::uint8_t* codes, Rounding rounding) {
  const Floats d;
  const AffineEncoder encoder({.step = step});
  const auto code_of = [&](FloatLanes value) HWY_ATTR {
    const auto scaled = hn::Mul(hn::Mul(value, hn::Set(d, encoder.scale)), hn::Set(d, encoder.inverse_step));
    const auto placed = hn::Min(hn::BitCast(d, magnitude_of(scaled)), hn::Set(d, e4m3_max));
    return hn::Or(narrowed<e4m3>(hn::BitCast(Words(), placed), rounding), sign_of<e4m3>(value));
  };
  const auto load = [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); };
  const auto store = [&](WordLanes lanes, std::uint8_t* into) HWY_ATTR { store_codes(lanes, into); };
  walk(input.from, codes, input.count, load, code_of, store);
}

void encode_fp8(const BlockInput& input, std::uint8_t* into) {
  std::uint8_t* const codes = into + sizeof(float);
  const std::uint32_t magnitude = extent_of(input.from, input.count).magnitude;
  if (magnitude >= infinity_bits) return store_le(into, -encode_special_fp8(input, codes));
  const double greatest = std::bit_cast<float>(magnitude);
  const float step = step_for(greatest, static_cast<std::uint32_t>(e4m3_max));
  store_le(into, step);
  if (input.quantization.rounding == QuantizationRounding::nearest) return find_fp8(input, step, codes, ToNearest<e4m3>{});
  find_fp8(input, step, codes, ByNoise<e4m3>{NoiseLanes(input.noise)});
}

template <MinifloatFormat format>
void encode_cast(const BlockInput& input, std::uint8_t* into) {
  std::uint16_t codes[quantization_block_max];
  if (input.quantization.rounding == QuantizationRounding::nearest) {
    cast<format>(input, codes, ToNearest<format>{});
  } else {
    cast<format>(input, codes, ByNoise<format>{NoiseLanes(input.noise)});
  }
  std::memcpy(into, codes, 2 * input.count);
}

void encode(const EncodeJob& job) {
  const auto format = job.quantization.format;
  std::uint8_t* into = job.into;
  for (std::size_t begin = 0; begin < job.count; begin += job.quantization.block) {
    const std::size_t count = std::min<std::size_t>(job.quantization.block, job.count - begin);
    const Noise noise(job.quantization.seed, job.stream, job.first_element + begin);
    const BlockInput input{job.quantization, noise, job.from + begin, count};
    if (format == QuantizedFormat::fp8) encode_fp8(input, into);
    if (format == QuantizedFormat::bf16) encode_cast<brain16>(input, into);
    if (format == QuantizedFormat::f16) encode_cast<binary16>(input, into);
    into += block_header_bytes(format) + code_bytes(format, count);
  }
}

// The values of codes without their sign, of which the sign is put back.
template <MinifloatFormat format>
HWY_INLINE FloatLanes signed_values(FloatLanes magnitude, WordLanes codes) {
  const auto sign = hn::ShiftLeft<31>(hn::ShiftRight<format.sign_shift()>(codes));
  return hn::BitCast(Floats(), hn::Or(hn::BitCast(Words(), magnitude), sign));
}
template <MinifloatFormat format>
HWY_INLINE WordLanes magnitudes_of(WordLanes codes) {
  return hn::And(codes, hn::Set(Words(), (1u << format.sign_shift()) - 1));
}
template <MinifloatFormat format>
HWY_INLINE FloatLanes widened_lanes(WordLanes magnitudes) {
  const Floats d;
  return hn::Mul(hn::BitCast(d, hn::ShiftLeft<format.dropped()>(magnitudes)), hn::Set(d, format.widening()));
}

void decode_fp8(float step, const std::uint8_t* codes, std::size_t count, float* into) {
  const Floats d;
  const auto value = [&](WordLanes code) HWY_ATTR {
    const auto number = hn::Mul(widened_lanes<e4m3>(magnitudes_of<e4m3>(code)), hn::Set(d, step));
    return signed_values<e4m3>(hn::Min(number, hn::Set(d, std::numeric_limits<float>::max())), code);
  };
  const auto load = [&](const std::uint8_t* from) HWY_ATTR { return load_codes(from); };
  const auto store = [&](FloatLanes lanes, float* to) HWY_ATTR { hn::StoreU(lanes, d, to); };
  walk(codes, into, count, load, value, store);
}

template <MinifloatFormat format>
void decode_cast(const std::uint16_t* codes, std::size_t count, float* into) {
  const Words words;
  const Floats d;
  constexpr std::uint32_t infinity_code = ((1u << format.exponent) - 1) << format.mantissa;
  const auto value = [&](WordLanes code) HWY_ATTR {
    const auto magnitude = magnitudes_of<format>(code);
    auto number = hn::BitCast(d, hn::ShiftLeft<format.dropped()>(magnitude));
    if constexpr (format.rebias() != 0) {
      const auto is_infinite = hn::Eq(magnitude, hn::Set(words, infinity_code));
      number = hn::IfThenElse(hn::RebindMask(d, is_infinite), hn::BitCast(d, hn::Set(words, infinity_bits)),
                              widened_lanes<format>(magnitude));
    }
    const auto is_nan = hn::Gt(hn::BitCast(Ints(), magnitude), hn::Set(Ints(), static_cast<std::int32_t>(infinity_code)));
    return hn::IfThenElse(hn::RebindMask(d, is_nan), hn::BitCast(d, hn::Set(words, quiet_nan_bits)),
                          signed_values<format>(number, code));
  };
  const auto load = [&](const std::uint16_t* from) HWY_ATTR { return load_codes(from); };
  const auto store = [&](FloatLanes lanes, float* to) HWY_ATTR { hn::StoreU(lanes, d, to); };
  walk(codes, into, count, load, value, store);
}

bool decode(const DecodeJob& job) {
  const auto format = job.quantization.format;
  const std::uint8_t* from = job.from;
  for (std::size_t begin = 0; begin < job.count; begin += job.quantization.block) {
    const std::size_t count = std::min<std::size_t>(job.quantization.block, job.count - begin);
    float* const into = job.into + begin;
    if (format == QuantizedFormat::fp8) {
      const auto step = load_le<float>(from);
      if (!std::isfinite(step)) return false;
      const auto of_block = std::signbit(step) ? decode_special_fp8 : decode_fp8;
      of_block(std::fabs(step), from + sizeof step, count, into);
    } else {
      std::uint16_t codes[quantization_block_max];
      std::memcpy(codes, from, 2 * count);
      (format == QuantizedFormat::bf16 ? decode_cast<brain16> : decode_cast<binary16>)(codes, count, into);
    }
    from += block_header_bytes(format) + code_bytes(format, count);
  }
  return true;
}

std::uint32_t magnitude(const float* from, std::size_t count) {
  return count == 0 ? 0 : extent_of(from, count).magnitude;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl {

HWY_EXPORT(encode);
HWY_EXPORT(decode);
HWY_EXPORT(magnitude);

void encode_minifloats(const EncodeJob& job) { HWY_DYNAMIC_DISPATCH(encode)(job); }
bool decode_minifloats(const DecodeJob& job) { return HWY_DYNAMIC_DISPATCH(decode)(job); }
std::uint32_t greatest_magnitude(const float* from, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(magnitude)(from, count);
}

}  // namespace pccl
#endif
