// f16 (IEEE 754 binary16) and bf16 (the upper half of a binary32) as f32 and back, rounded to nearest, ties to even.
// A vector of 16-bit lanes becomes two of f32, `first` and `second`; which lanes are in which is the format's own
// business. `join` wants no NaN but f32's quiet_nan, and makes it the 16-bit one.
#include <cstdint>

#if defined(PCCL_REDUCE_HALF_FLOATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PCCL_REDUCE_HALF_FLOATS_INL_H_
#undef PCCL_REDUCE_HALF_FLOATS_INL_H_
#else
#define PCCL_REDUCE_HALF_FLOATS_INL_H_
#endif

#include <hwy/highway.h>

// Targets whose conversions are instructions, and those round as IEEE 754 says; Highway's own emulation doesn't.
#undef PCCL_F16_INSTRUCTIONS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
#define PCCL_F16_INSTRUCTIONS 1
#elif HWY_TARGET == HWY_NEON && (__ARM_FP & 2)
#define PCCL_F16_INSTRUCTIONS 1
#else
#define PCCL_F16_INSTRUCTIONS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 32-bit lanes, the even 16-bit lanes in their lower halves and the odd ones in their upper halves.
template <class D>
using Pairs = hn::Repartition<std::uint32_t, D>;

struct Bf16 {
  template <class D, class V, class D32 = hn::Repartition<float, D>>
  static HWY_INLINE hn::VFromD<D32> first(D, V v) {
    return hn::BitCast(D32(), hn::ShiftLeft<16>(hn::BitCast(Pairs<D>(), v)));
  }
  template <class D, class V, class D32 = hn::Repartition<float, D>>
  static HWY_INLINE hn::VFromD<D32> second(D, V v) {
    const Pairs<D> pairs;
    return hn::BitCast(D32(), hn::And(hn::BitCast(pairs, v), hn::Set(pairs, 0xffff0000u)));
  }
  template <class D, class W>
  static HWY_INLINE hn::VFromD<D> join(D d, W first, W second) {
    const Pairs<D> pairs;
    const auto upper = hn::And(rounded(pairs, hn::BitCast(pairs, second)), hn::Set(pairs, 0xffff0000u));
    return hn::BitCast(d, hn::Or(hn::ShiftRight<16>(rounded(pairs, hn::BitCast(pairs, first))), upper));
  }

 private:
  // The upper half is the result: what is added carries into it from more than one half of its last bit, or from one
  // half when that bit is odd. Beyond the largest number the carry makes an infinity.
  template <class D32, class V>
  static HWY_INLINE V rounded(D32 d, V bits) {
    const V odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
    return hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fffu)));
  }
};

#if PCCL_F16_INSTRUCTIONS

struct F16 {
  template <class D, class V, class D32 = hn::Repartition<float, D>>
  static HWY_INLINE hn::VFromD<D32> first(D, V v) {
    const hn::Rebind<hwy::float16_t, D32> half;
    return hn::PromoteTo(D32(), hn::BitCast(half, hn::LowerHalf(v)));
  }
  template <class D, class V, class D32 = hn::Repartition<float, D>>
  static HWY_INLINE hn::VFromD<D32> second(D, V v) {
    const hn::Rebind<hwy::float16_t, D32> half;
    return hn::PromoteTo(D32(), hn::BitCast(half, hn::UpperHalf(hn::Half<D>(), v)));
  }
  template <class D, class W>
  static HWY_INLINE hn::VFromD<D> join(D d, W first, W second) {
    const hn::Half<D> half;
    const hn::Rebind<hwy::float16_t, hn::Repartition<float, D>> half_float;
    return hn::Combine(d, hn::BitCast(half, hn::DemoteTo(half_float, second)),
                       hn::BitCast(half, hn::DemoteTo(half_float, first)));
  }
};

#else

struct F16 {
  template <class D, class V, class D32 = hn::Repartition<float, D>>
  static HWY_INLINE hn::VFromD<D32> first(D, V v) {
    const Pairs<D> pairs;
    return widened(D32(), hn::And(hn::BitCast(pairs, v), hn::Set(pairs, 0xffffu)));
  }
  template <class D, class V, class D32 = hn::Repartition<float, D>>
  static HWY_INLINE hn::VFromD<D32> second(D, V v) {
    return widened(D32(), hn::ShiftRight<16>(hn::BitCast(Pairs<D>(), v)));
  }
  template <class D, class W>
  static HWY_INLINE hn::VFromD<D> join(D d, W first, W second) {
    const hn::Repartition<float, D> wide;
    return hn::BitCast(d, hn::Or(narrowed(wide, first), hn::ShiftLeft<16>(narrowed(wide, second))));
  }

 private:
  // Exponent and mantissa where f32 has them are the number times 2^-112, subnormal ones too.
  template <class D32, class V>
  static HWY_INLINE hn::VFromD<D32> widened(D32 d, V bits) {
    const hn::RebindToUnsigned<D32> lanes;
    const V magnitude = hn::And(bits, hn::Set(lanes, 0x7fffu));
    const V sign = hn::ShiftLeft<16>(hn::Xor(bits, magnitude));
    const auto number = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(magnitude)), hn::Set(d, 0x1p112f));
    // Infinity and NaN have become 2^16 and more.
    const auto infinite = hn::IfThenElseZero(hn::Ge(number, hn::Set(d, 0x1p16f)), infinity(d));
    return hn::Or(hn::Or(number, infinite), hn::BitCast(d, sign));
  }

  // The result is in the lower half.
  template <class D32, class W>
  static HWY_INLINE hn::VFromD<hn::RebindToUnsigned<D32>> narrowed(D32 d, W number) {
    const hn::RebindToUnsigned<D32> lanes;
    const auto bits = hn::BitCast(lanes, number);
    const auto magnitude = hn::And(bits, hn::Set(lanes, 0x7fffffffu));
    const auto sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
    // As for bf16, with 13 bits dropped; what is too large becomes infinity before, or by the carry.
    const auto large = hn::Min(magnitude, hn::Set(lanes, 0x47800000u));
    const auto odd = hn::And(hn::ShiftRight<13>(large), hn::Set(lanes, 1u));
    const auto rounded = hn::Sub(hn::Add(large, hn::Add(odd, hn::Set(lanes, 0xfffu))), hn::Set(lanes, 112u << 23));
    // Subnormal results: beside 1/2 the last bit that an f32 has room for is 2^-24, as theirs is.
    const auto beside = hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5f));
    const auto subnormal = hn::Sub(hn::BitCast(lanes, beside), hn::BitCast(lanes, hn::Set(d, 0.5f)));
    const auto is_subnormal = hn::Lt(hn::BitCast(d, magnitude), hn::Set(d, 0x1p-14f));
    const auto finite =
        hn::IfThenElse(hn::RebindMask(lanes, is_subnormal), subnormal, hn::ShiftRight<13>(rounded));
    const auto is_nan = hn::RebindMask(lanes, hn::IsNaN(number));
    return hn::Or(hn::IfThenElse(is_nan, hn::Set(lanes, 0x7e00u), finite), sign);
  }

  template <class D32>
  static HWY_INLINE hn::VFromD<D32> infinity(D32 d) {
    return hn::BitCast(d, hn::Set(hn::RebindToUnsigned<D32>(), 0x7f800000u));
  }
};

#endif

}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#endif
