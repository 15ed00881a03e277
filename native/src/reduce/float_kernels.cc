// Floating-point numbers of 16 to 64 bits. The same bits on every CPU: each operation is rounded on its own, to
// nearest, ties to even, f16 and bf16 computing in f32, and whatever NaN an operation gives becomes one positive
// quiet NaN, since CPUs differ in its sign and payload.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reduce/float_kernels.cc"
#include <hwy/foreach_target.h>
//
#include <cstdint>
#include <limits>
#include <type_traits>

#include <hwy/highway.h>
#include "reduce/half_floats-inl.h"
#include "reduce/operands.h"
#include "reduce/walk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace {

template <typename T>
struct Format;
template <>
struct Format<float> {
  using Lane = std::uint32_t;
  static constexpr Lane infinity = 0x7f800000;
  static constexpr Lane quiet_nan = 0x7fc00000;
};
template <>
struct Format<double> {
  using Lane = std::uint64_t;
  static constexpr Lane infinity = 0x7ff0000000000000;
  static constexpr Lane quiet_nan = 0x7ff8000000000000;
};
template <>
struct Format<F16> {
  using Lane = std::uint16_t;
  static constexpr Lane infinity = 0x7c00;
  static constexpr Lane quiet_nan = 0x7e00;
};
template <>
struct Format<Bf16> {
  using Lane = std::uint16_t;
  static constexpr Lane infinity = 0x7f80;
  static constexpr Lane quiet_nan = 0x7fc0;
};

struct Sum {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Add(a, b);
  }
};

struct Product {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Mul(a, b);
  }
};

struct Mean {
  std::uint32_t divisor;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    return hn::Div(hn::Add(a, b), hn::Set(d, static_cast<hn::TFromD<D>>(divisor)));
  }
};

// T: the elements' type. F: what is computed, in float or double.
template <typename T, class F>
struct Arithmetic {
  F f;

  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    if constexpr (std::is_floating_point_v<T>) {
      const hn::Rebind<T, D> number;
      return hn::BitCast(d, quiet(number, f(number, hn::BitCast(number, a), hn::BitCast(number, b))));
    } else {
      const hn::Repartition<float, D> number;
      return T::join(d, quiet(number, f(number, T::first(d, a), T::first(d, b))),
                     quiet(number, f(number, T::second(d, a), T::second(d, b))));
    }
  }

 private:
  template <class D, class V>
  static HWY_INLINE V quiet(D d, V v) {
    const hn::RebindToUnsigned<D> bits;
    const V nan = hn::BitCast(d, hn::Set(bits, Format<hn::TFromD<D>>::quiet_nan));
    return hn::IfThenElse(hn::IsNaN(v), nan, v);
  }
};

// IEEE 754-2019 maximum and minimum, of bits: NaN if either is one, and -0 is less than +0.
template <typename T, bool is_maximum>
struct Extremum {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    const hn::RebindToSigned<D> ordered;
    const auto a_place = place(d, a);
    const auto b_place = place(d, b);
    const auto chosen = is_maximum ? hn::Max(a_place, b_place) : hn::Min(a_place, b_place);
    const V number = hn::BitCast(d, place(d, hn::BitCast(d, chosen)));
    const auto is_nan = hn::RebindMask(d, hn::Gt(hn::Max(magnitude(d, a), magnitude(d, b)),
                                                 hn::Set(ordered, static_cast<Signed>(Format<T>::infinity))));
    return hn::IfThenElse(is_nan, hn::Set(d, Format<T>::quiet_nan), number);
  }

 private:
  using Lane = typename Format<T>::Lane;
  using Signed = std::make_signed_t<Lane>;

  // As signed integers, numbers order as these do: the bits below the sign are inverted where it is set. Its own
  // inverse.
  template <class D, class V>
  static HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> place(D d, V v) {
    const hn::RebindToSigned<D> ordered;
    const V sign = hn::BitCast(d, hn::BroadcastSignBit(hn::BitCast(ordered, v)));
    return hn::BitCast(ordered, hn::Xor(v, hn::ShiftRight<1>(sign)));
  }

  template <class D, class V>
  static HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> magnitude(D d, V v) {
    const V mask = hn::Set(d, static_cast<Lane>(std::numeric_limits<Signed>::max()));
    return hn::BitCast(hn::RebindToSigned<D>(), hn::And(v, mask));
  }
};

template <typename T>
void combine(ReduceOp op, const Operands& operands) {
  using Lane = typename Format<T>::Lane;
  switch (op) {
    case ReduceOp::avg:
      if (operands.divisor > 1) return walk<Lane>(operands, Arithmetic<T, Mean>{{operands.divisor}});
      [[fallthrough]];
    case ReduceOp::sum:
      return walk<Lane>(operands, Arithmetic<T, Sum>{});
    case ReduceOp::max:
      return walk<Lane>(operands, Extremum<T, true>{});
    case ReduceOp::min:
      return walk<Lane>(operands, Extremum<T, false>{});
    case ReduceOp::prod:
      return walk<Lane>(operands, Arithmetic<T, Product>{});
  }
}

void combine_any(DType dtype, ReduceOp op, const Operands& operands) {
  switch (dtype) {
    case DType::f16:
      return combine<F16>(op, operands);
    case DType::bf16:
      return combine<Bf16>(op, operands);
    case DType::f32:
      return combine<float>(op, operands);
    case DType::f64:
      return combine<double>(op, operands);
    default:
      return;  // combine_integers
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl {

HWY_EXPORT(combine_any);

void combine_floats(DType dtype, ReduceOp op, const Operands& operands) {
  HWY_DYNAMIC_DISPATCH(combine_any)(dtype, op, operands);
}

}  // namespace pccl
#endif
