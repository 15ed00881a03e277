// Integers of 8 to 64 bits. Sums and products wrap around, which signed and unsigned ones do alike.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reduce/integer_kernels.cc"
#include <hwy/foreach_target.h>
//
#include <algorithm>
#include <type_traits>

#include <hwy/highway.h>
#include "reduce/division-inl.h"
#include "reduce/operands.h"
#include "reduce/walk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace {

struct Sum {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Add(a, b);
  }
};

struct Product {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    if constexpr (sizeof(hn::TFromD<D>) == 1) {
      // Few targets multiply bytes; as 16-bit lanes the even and odd ones take turns.
      const hn::Repartition<std::uint16_t, D> wide;
      const auto a16 = hn::BitCast(wide, a);
      const auto b16 = hn::BitCast(wide, b);
      const auto even = hn::And(hn::Mul(a16, b16), hn::Set(wide, 0x00ff));
      const auto odd = hn::Mul(hn::ShiftRight<8>(a16), hn::And(b16, hn::Set(wide, 0xff00)));
      return hn::BitCast(d, hn::Or(even, odd));
    } else {
      return hn::Mul(a, b);
    }
  }
};

template <typename T>
struct Maximum {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    const hn::Rebind<T, D> typed;
    return hn::BitCast(d, hn::Max(hn::BitCast(typed, a), hn::BitCast(typed, b)));
  }
};

template <typename T>
struct Minimum {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    const hn::Rebind<T, D> typed;
    return hn::BitCast(d, hn::Min(hn::BitCast(typed, a), hn::BitCast(typed, b)));
  }
};

// The sum, wrapped around, divided towards zero.
template <typename T>
struct Mean {
  // Bytes are divided as 16-bit lanes.
  using Lane = std::conditional_t<sizeof(T) == 1, std::uint16_t, std::make_unsigned_t<T>>;
  Divisor<Lane> divisor;

  template <class D, class V>
  HWY_INLINE V quotient(D d, V dividend) const {
    if constexpr (sizeof(T) == 1) {
      const hn::Repartition<std::uint16_t, D> wide;
      const auto dividend16 = hn::BitCast(wide, dividend);
      const auto even = divide(wide, hn::And(dividend16, hn::Set(wide, 0x00ff)), divisor);
      const auto odd = divide(wide, hn::ShiftRight<8>(dividend16), divisor);
      return hn::BitCast(d, hn::Or(even, hn::ShiftLeft<8>(odd)));
    } else {
      return divide(d, dividend, divisor);
    }
  }

  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    const V sum = hn::Add(a, b);
    if constexpr (std::is_signed_v<T>) {
      // The magnitude is divided; all bits of `sign` are set where the sum is negative.
      const hn::RebindToSigned<D> typed;
      const V sign = hn::BitCast(d, hn::BroadcastSignBit(hn::BitCast(typed, sum)));
      const V magnitude = hn::Sub(hn::Xor(sum, sign), sign);
      return hn::Sub(hn::Xor(quotient(d, magnitude), sign), sign);
    } else {
      return quotient(d, sum);
    }
  }
};

template <typename T>
void combine(ReduceOp op, const Operands& operands) {
  using Lane = std::make_unsigned_t<T>;
  switch (op) {
    case ReduceOp::avg:
      if (operands.divisor > 1) return walk<Lane>(operands, Mean<T>{Divisor<typename Mean<T>::Lane>(operands.divisor)});
      [[fallthrough]];
    case ReduceOp::sum:
      return walk<Lane>(operands, Sum{});
    case ReduceOp::max:
      return walk<Lane>(operands, Maximum<T>{});
    case ReduceOp::min:
      return walk<Lane>(operands, Minimum<T>{});
    case ReduceOp::prod:
      return walk<Lane>(operands, Product{});
  }
}

void combine_any(DType dtype, ReduceOp op, const Operands& operands) {
  switch (dtype) {
    case DType::u8:
      return combine<std::uint8_t>(op, operands);
    case DType::i8:
      return combine<std::int8_t>(op, operands);
    case DType::u16:
      return combine<std::uint16_t>(op, operands);
    case DType::i16:
      return combine<std::int16_t>(op, operands);
    case DType::u32:
      return combine<std::uint32_t>(op, operands);
    case DType::i32:
      return combine<std::int32_t>(op, operands);
    case DType::u64:
      return combine<std::uint64_t>(op, operands);
    case DType::i64:
      return combine<std::int64_t>(op, operands);
    case DType::f16:
    case DType::bf16:
    case DType::f32:
    case DType::f64:
      return;  // combine_floats
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl {
HWY_EXPORT(combine_any);

void combine_integers(DType dtype, ReduceOp op, const Operands& operands) {
  HWY_DYNAMIC_DISPATCH(combine_any)(dtype, op, operands);
}

}  // namespace pccl
#endif
