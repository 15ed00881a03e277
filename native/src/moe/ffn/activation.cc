// Vectors of unknown size can't be members of structs; Arm CPUs that have them run the NEON version.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "moe/ffn/activation.cc"
#include <hwy/foreach_target.h>
//
#include <algorithm>
#include <bit>
#include <type_traits>

#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
#include "moe/ffn/activation.h"

HWY_BEFORE_NAMESPACE();
namespace pccl::moe {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using Floats = hn::ScalableTag<float>;
using Cells = hn::Repartition<std::uint32_t, Floats>;
using Halves = hn::Rebind<std::uint16_t, Floats>;
using V = hn::Vec<Floats>;
using VCells = hn::Vec<Cells>;

HWY_INLINE V number(float value) { return hn::Set(Floats(), value); }

// The bf16 number is the upper half of each lane.
HWY_INLINE VCells rounded(V v) {
  const Cells cells;
  const auto bits = hn::BitCast(cells, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(cells, 1u));
  const auto nearest = hn::Add(bits, hn::Add(odd, hn::Set(cells, 0x7fffu)));
  return hn::IfThenElse(hn::RebindMask(cells, hn::IsNaN(v)), hn::Set(cells, 0x7fc00000u), nearest);
}

HWY_INLINE V load(const float* from) { return hn::LoadU(Floats(), from); }
HWY_INLINE void store(V v, float* into) { hn::StoreU(v, Floats(), into); }

HWY_INLINE V load(const std::uint16_t* from) {
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(Cells(), hn::LoadU(Halves(), from))));
}
HWY_INLINE void store(V v, std::uint16_t* into) {
  hn::StoreU(hn::TruncateTo(Halves(), hn::ShiftRight<16>(rounded(v))), Halves(), into);
}

struct Pair {
  V gate;
  V up;
};

// Gates and ups in turn.
HWY_INLINE Pair load_pairs(const float* from) {
  Pair pair;
  hn::LoadInterleaved2(Floats(), from, pair.gate, pair.up);
  return pair;
}
HWY_INLINE void store_pairs(Pair pair, float* into) { hn::StoreInterleaved2(pair.gate, pair.up, Floats(), into); }

HWY_INLINE Pair load_pairs(const std::uint16_t* from) {
  const Cells cells;
  const auto both = hn::LoadU(cells, reinterpret_cast<const std::uint32_t*>(from));
  return {hn::BitCast(Floats(), hn::ShiftLeft<16>(both)),
          hn::BitCast(Floats(), hn::And(both, hn::Set(cells, 0xffff0000u)))};
}
HWY_INLINE void store_pairs(Pair pair, std::uint16_t* into) {
  const Cells cells;
  const auto upper = hn::And(rounded(pair.up), hn::Set(cells, 0xffff0000u));
  hn::StoreU(hn::Or(hn::ShiftRight<16>(rounded(pair.gate)), upper), cells, reinterpret_cast<std::uint32_t*>(into));
}

// A NaN stays one.
HWY_INLINE V at_most(V v, float limit) { return hn::IfThenElse(hn::Gt(v, number(limit)), number(limit), v); }
HWY_INLINE V at_least(V v, float limit) { return hn::IfThenElse(hn::Lt(v, number(limit)), number(limit), v); }

// The exponential of 87 is finite, and beyond that the sigmoid doesn't change any more, or is next to nothing.
HWY_INLINE V sigmoid(V v) {
  const V clamped = at_least(at_most(v, 87), -87);
  return hn::Div(number(1), hn::Add(number(1), hn::Exp(Floats(), hn::Neg(clamped))));
}

struct Swiglu {
  static constexpr bool alternates = false;
  static HWY_INLINE V activate(Pair h) { return hn::Mul(h.up, hn::Mul(h.gate, sigmoid(h.gate))); }
  // Returns the gradient, and the activated number.
  static HWY_INLINE Pair differentiate(Pair h, V gradient, V& activated) {
    const V s = sigmoid(h.gate);
    const V silu = hn::Mul(h.gate, s);
    activated = hn::Mul(h.up, silu);
    const V slope = hn::Mul(s, hn::MulAdd(h.gate, hn::Sub(number(1), s), number(1)));
    return {hn::Mul(gradient, hn::Mul(h.up, slope)), hn::Mul(gradient, silu)};
  }
};

struct GptOss {
  static constexpr bool alternates = true;
  static constexpr float alpha = 1.702f;
  static constexpr float limit = 7;
  static HWY_INLINE Pair clamp(Pair h) { return {at_most(h.gate, limit), at_least(at_most(h.up, limit), -limit)}; }
  static HWY_INLINE V activate(Pair h) {
    const Pair c = clamp(h);
    return hn::Mul(hn::Add(c.up, number(1)), hn::Mul(c.gate, sigmoid(hn::Mul(number(alpha), c.gate))));
  }
  static HWY_INLINE Pair differentiate(Pair h, V gradient, V& activated) {
    const Pair c = clamp(h);
    const V up = hn::Add(c.up, number(1));
    const V scaled = hn::Mul(number(alpha), c.gate);
    const V s = sigmoid(scaled);
    const V glu = hn::Mul(c.gate, s);
    activated = hn::Mul(up, glu);
    const V slope = hn::Mul(s, hn::MulAdd(scaled, hn::Sub(number(1), s), number(1)));
    // What is cut off has no slope; the limits themselves have.
    const V by_gate = hn::Mul(gradient, hn::Mul(up, slope));
    const V by_up = hn::Mul(gradient, glu);
    return {hn::IfThenZeroElse(hn::Gt(h.gate, number(limit)), by_gate),
            hn::IfThenZeroElse(hn::Gt(hn::Abs(h.up), number(limit)), by_up)};
  }
};

template <class Kind, typename T>
HWY_INLINE Pair load_preactivations(const T* row, std::size_t inner, std::size_t i) {
  if constexpr (Kind::alternates) return load_pairs(row + 2 * i);
  return {load(row + i), load(row + inner + i)};
}

template <class Kind, typename T>
HWY_INLINE void store_preactivations(Pair pair, T* row, std::size_t inner, std::size_t i) {
  if constexpr (Kind::alternates) {
    store_pairs(pair, row + 2 * i);
  } else {
    store(pair.gate, row + i);
    store(pair.up, row + inner + i);
  }
}

constexpr std::size_t lanes_max = hn::MaxLanes(Floats());

// The last elements of a row, fewer than a vector, are computed in a row of their own, so that they have the same
// instructions as all others.
template <class Kind, typename T>
void copy_pairs(const T* from, std::size_t from_inner, std::size_t first, std::size_t count, T* into,
                std::size_t into_inner, std::size_t into_first) {
  if constexpr (Kind::alternates) {
    std::copy_n(from + 2 * first, 2 * count, into + 2 * into_first);
  } else {
    std::copy_n(from + first, count, into + into_first);
    std::copy_n(from + from_inner + first, count, into + into_inner + into_first);
  }
}

template <class Kind, typename T>
void activate_row(std::size_t inner, const T* preactivations, T* activated) {
  const std::size_t lanes = hn::Lanes(Floats());
  const auto step = [&](const T* row, std::size_t width, std::size_t i, T* into) HWY_ATTR {
    store(Kind::activate(load_preactivations<Kind>(row, width, i)), into);
  };
  std::size_t i = 0;
  for (; i + lanes <= inner; i += lanes) step(preactivations, inner, i, activated + i);
  if (i == inner) return;
  T row[2 * lanes_max] = {};
  T result[lanes_max];
  copy_pairs<Kind>(preactivations, inner, i, inner - i, row, lanes, 0);
  step(row, lanes, 0, result);
  std::copy_n(result, inner - i, activated + i);
}

template <class Kind, typename T>
void differentiate_row(std::size_t inner, const T* preactivations, const float* activated_gradient, T* activated,
                       T* preactivation_gradient) {
  const std::size_t lanes = hn::Lanes(Floats());
  const auto step = [&](const T* row, std::size_t width, std::size_t i, const float* gradient, T* result,
                        T* into) HWY_ATTR {
    V again;
    const Pair pair = Kind::differentiate(load_preactivations<Kind>(row, width, i), load(gradient), again);
    store(again, result);
    store_preactivations<Kind>(pair, into, width, i);
  };
  std::size_t i = 0;
  for (; i + lanes <= inner; i += lanes) {
    step(preactivations, inner, i, activated_gradient + i, activated + i, preactivation_gradient);
  }
  if (i == inner) return;
  const std::size_t rest = inner - i;
  T row[2 * lanes_max] = {};
  float gradient[lanes_max] = {};
  T result[lanes_max];
  T into[2 * lanes_max];
  copy_pairs<Kind>(preactivations, inner, i, rest, row, lanes, 0);
  std::copy_n(activated_gradient + i, rest, gradient);
  step(row, lanes, 0, gradient, result, into);
  std::copy_n(result, rest, activated + i);
  copy_pairs<Kind>(into, lanes, 0, rest, preactivation_gradient, inner, i);
}

// Calls f with a value of the kind's type and one of the elements' type.
template <class F>
void with_types(Activation activation, DType dtype, const F& f) {
  const auto with_kind = [&](auto kind) {
    if (dtype == DType::bf16) return f(kind, std::uint16_t{});
    f(kind, float{});
  };
  if (activation == Activation::gpt_oss) return with_kind(GptOss{});
  with_kind(Swiglu{});
}

void activate_rows(Activation activation, DType dtype, std::size_t rows, std::size_t inner, const void* preactivations,
                   void* activated) {
  with_types(activation, dtype, [&](auto kind, auto element) {
    using T = decltype(element);
    for (std::size_t row = 0; row < rows; ++row) {
      activate_row<decltype(kind)>(inner, static_cast<const T*>(preactivations) + row * 2 * inner,
                                   static_cast<T*>(activated) + row * inner);
    }
  });
}

void differentiate_rows(Activation activation, DType dtype, std::size_t rows, std::size_t inner,
                        const void* preactivations, const float* activated_gradient, void* activated,
                        void* preactivation_gradient) {
  with_types(activation, dtype, [&](auto kind, auto element) {
    using T = decltype(element);
    for (std::size_t row = 0; row < rows; ++row) {
      differentiate_row<decltype(kind)>(inner, static_cast<const T*>(preactivations) + row * 2 * inner,
                                        activated_gradient + row * inner, static_cast<T*>(activated) + row * inner,
                                        static_cast<T*>(preactivation_gradient) + row * 2 * inner);
    }
  });
}

void round_all(const float* from, std::size_t count, std::uint16_t* into) {
  const std::size_t lanes = hn::Lanes(Floats());
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) store(load(from + i), into + i);
  if (i == count) return;
  float rest[lanes_max] = {};
  std::uint16_t result[lanes_max];
  std::copy_n(from + i, count - i, rest);
  store(load(rest), result);
  std::copy_n(result, count - i, into + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl::moe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl::moe {

HWY_EXPORT(activate_rows);
HWY_EXPORT(differentiate_rows);
HWY_EXPORT(round_all);

void activate(Activation activation, DType dtype, std::size_t rows, std::size_t inner, const void* preactivations,
              void* activated) {
  HWY_DYNAMIC_DISPATCH(activate_rows)(activation, dtype, rows, inner, preactivations, activated);
}

void differentiate(Activation activation, DType dtype, std::size_t rows, std::size_t inner, const void* preactivations,
                   const float* activated_gradient, void* activated, void* preactivation_gradient) {
  HWY_DYNAMIC_DISPATCH(differentiate_rows)
  (activation, dtype, rows, inner, preactivations, activated_gradient, activated, preactivation_gradient);
}

void round_to_bf16(const float* from, std::size_t count, std::uint16_t* into) {
  HWY_DYNAMIC_DISPATCH(round_all)(from, count, into);
}

void widen_bf16(const std::uint16_t* from, std::size_t count, float* into) {
  for (std::size_t i = 0; i < count; ++i) into[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16);
}

}  // namespace pccl::moe
#endif
