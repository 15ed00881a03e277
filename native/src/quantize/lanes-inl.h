// What the vector kernels share: the way through a block, its least and greatest values, and noise.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "quantize/noise.h"
#include "quantize/special_blocks.h"

// Highway's include guard for code per target.
#if defined(PCCL_QUANTIZE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PCCL_QUANTIZE_LANES_INL_H_
#undef PCCL_QUANTIZE_LANES_INL_H_
#else
#define PCCL_QUANTIZE_LANES_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using FloatLanes = hn::VFromD<Floats>;
using WordLanes = hn::VFromD<Words>;

template <typename T>
using Narrow = hn::Rebind<T, Floats>;

// Codes of 32 bits as those of fewer that they fit in.
template <typename T>
HWY_INLINE void store_codes(WordLanes codes, T* into) {
  hn::StoreU(hn::DemoteTo(Narrow<T>(), hn::BitCast(Ints(), codes)), Narrow<T>(), into);
}
template <typename T>
HWY_INLINE WordLanes load_codes(const T* from) {
  return hn::BitCast(Words(), hn::PromoteTo(Ints(), hn::LoadU(Narrow<T>(), from)));
}

// Of whole vectors. Not inlined: walk needs it twice, and compilers take long over some dozens of kernels.
template <typename From, typename To, class Load, class F, class Store>
HWY_NOINLINE void walk_vectors(const From* from, To* into, std::size_t vectors, const Load& load, F& f,
                               const Store& store) {
  const std::size_t lanes = hn::Lanes(Floats());
  for (std::size_t i = 0; i < vectors * lanes; i += lanes) store(f(load(from + i)), into + i);
}

// into[i] = f(from[i]) in vectors, in order, and at the end through copies, so that nothing is read or written beyond
// the arrays. `load` makes lanes of one array's elements, `store` puts them into the other one.
template <typename From, typename To, class Load, class F, class Store>
HWY_INLINE void walk(const From* from, To* into, std::size_t count, const Load& load, F f, const Store& store) {
  const std::size_t lanes = hn::Lanes(Floats());
  const std::size_t whole = count / lanes * lanes;
  walk_vectors(from, into, count / lanes, load, f, store);
  if (whole == count) return;
  From rest[hn::MaxLanes(Floats())] = {};
  To result[hn::MaxLanes(Floats())];
  std::copy(from + whole, from + count, rest);
  walk_vectors(rest, result, 1, load, f, store);
  std::copy_n(result, count - whole, into + whole);
}

struct Extent {
  float min = 0;
  float max = 0;
  // The bits of the greatest magnitude.
  std::uint32_t magnitude = 0;
};

// min and max count only if all values are finite; a zero is +0.
HWY_INLINE Extent extent_of(const float* from, std::size_t count) {
  const Floats d;
  const Words words;
  const Ints ints;
  const std::size_t lanes = hn::Lanes(d);
  const auto mask = hn::Set(words, magnitude_mask);
  FloatLanes min = hn::Set(d, from[0]);
  FloatLanes max = min;
  auto magnitude = hn::Zero(ints);
  const auto add = [&](FloatLanes value) {
    min = hn::Min(min, value);
    max = hn::Max(max, value);
    magnitude = hn::Max(magnitude, hn::BitCast(ints, hn::And(hn::BitCast(words, value), mask)));
  };
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) add(hn::LoadU(d, from + i));
  if (i < count) {
    float rest[hn::MaxLanes(d)];
    std::fill_n(rest, lanes, from[0]);
    std::copy(from + i, from + count, rest);
    add(hn::LoadU(d, rest));
  }
  float mins[hn::MaxLanes(d)];
  float maxes[hn::MaxLanes(d)];
  std::int32_t magnitudes[hn::MaxLanes(d)];
  hn::StoreU(min, d, mins);
  hn::StoreU(max, d, maxes);
  hn::StoreU(magnitude, ints, magnitudes);
  return {*std::min_element(mins, mins + lanes) + 0.0f, *std::max_element(maxes, maxes + lanes) + 0.0f,
          static_cast<std::uint32_t>(*std::max_element(magnitudes, magnitudes + lanes))};
}

// A block's random bits, vector by vector. It holds no vectors, since those of some CPUs can't be members.
class NoiseLanes {
 public:
  explicit NoiseLanes(const Noise& noise) : start_(noise.start), tweak_(noise.tweak) {}

  HWY_INLINE WordLanes next() {
    const Words words;
    const auto counted = hn::Mul(hn::Iota(words, 0), hn::Set(words, std::uint32_t{Noise::stride}));
    auto bits = hn::Add(hn::Set(words, start_), counted);
    start_ += static_cast<std::uint32_t>(hn::Lanes(words)) * Noise::stride;
    bits = hn::Mul(hn::Xor(bits, hn::ShiftRight<16>(bits)), hn::Set(words, std::uint32_t{Noise::first_factor}));
    bits = hn::Xor(bits, hn::Set(words, tweak_));
    bits = hn::Mul(hn::Xor(bits, hn::ShiftRight<13>(bits)), hn::Set(words, std::uint32_t{Noise::second_factor}));
    return hn::Xor(bits, hn::ShiftRight<16>(bits));
  }
  static HWY_INLINE FloatLanes fraction(WordLanes bits) {
    const Floats d;
    return hn::Mul(hn::ConvertTo(d, hn::BitCast(Ints(), hn::ShiftRight<8>(bits))), hn::Set(d, 0x1p-24f));
  }

 private:
  std::uint32_t start_;
  std::uint32_t tweak_;
};

}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#endif
