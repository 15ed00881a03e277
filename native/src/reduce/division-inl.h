// Division of unsigned integers by a number that stays the same, by multiplication and shifts: Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1. Exact for every dividend.
#include <algorithm>
#include <bit>
#include <cstdint>

#if defined(PCCL_REDUCE_DIVISION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PCCL_REDUCE_DIVISION_INL_H_
#undef PCCL_REDUCE_DIVISION_INL_H_
#else
#define PCCL_REDUCE_DIVISION_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// T: 16, 32 or 64 bits, unsigned.
template <typename T>
struct Divisor {
  T multiplier;
  int first_shift;
  int second_shift;

  // by: 1 … 2^16.
  explicit Divisor(std::uint32_t by) {
    const int log = static_cast<int>(std::bit_width(by - 1));  // rounded up
    const std::uint64_t excess = (std::uint64_t{1} << log) - by;
    multiplier = static_cast<T>((static_cast<unsigned __int128>(excess) << (8 * sizeof(T))) / by + 1);
    first_shift = std::min(log, 1);
    second_shift = std::max(log - 1, 0);
  }
};

// The upper half of each product.
template <class D, class V>
HWY_INLINE V multiply_high(D d, V a, V b) {
  if constexpr (sizeof(hn::TFromD<D>) == 2) {
    return hn::MulHigh(a, b);
  } else if constexpr (sizeof(hn::TFromD<D>) == 4) {
    // The even and the odd lanes have their turns.
    const hn::Repartition<std::uint64_t, D> wide;
    const V a_odd = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a)));
    const V b_odd = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, b)));
    const auto even = hn::ShiftRight<32>(hn::MulEven(a, b));
    const auto odd = hn::And(hn::MulEven(a_odd, b_odd), hn::Set(wide, 0xffffffff00000000u));
    return hn::BitCast(d, hn::Or(even, odd));
  } else {
    // From the products of the halves.
    const hn::Repartition<std::uint32_t, D> half;
    const auto a_low = hn::BitCast(half, a);
    const auto b_low = hn::BitCast(half, b);
    const auto a_high = hn::BitCast(half, hn::ShiftRight<32>(a));
    const auto b_high = hn::BitCast(half, hn::ShiftRight<32>(b));
    const V middle = hn::MulEven(a_high, b_low);
    const V low = hn::ShiftRight<32>(hn::MulEven(a_low, b_low));
    // At most (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1.
    const V carry = hn::Add(hn::Add(low, hn::And(middle, hn::Set(d, 0xffffffffu))), hn::MulEven(a_low, b_high));
    return hn::Add(hn::Add(hn::MulEven(a_high, b_high), hn::ShiftRight<32>(middle)), hn::ShiftRight<32>(carry));
  }
}

template <class D, class V>
HWY_INLINE V divide(D d, V dividend, const Divisor<hn::TFromD<D>>& by) {
  const V high = multiply_high(d, dividend, hn::Set(d, by.multiplier));
  const V half = hn::ShiftRightSame(hn::Sub(dividend, high), by.first_shift);
  return hn::ShiftRightSame(hn::Add(high, half), by.second_shift);
}

}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#endif
