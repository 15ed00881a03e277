// The way of every kernel through its arrays: vector by vector, and at the end through a copy of what is left, so
// that nothing is read or written beyond the arrays. Compiled once per CPU target.
#include <algorithm>
#include <cstddef>

#include "reduce/operands.h"

// Highway's include guard for code per target.
#if defined(PCCL_REDUCE_WALK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PCCL_REDUCE_WALK_INL_H_
#undef PCCL_REDUCE_WALK_INL_H_
#else
#define PCCL_REDUCE_WALK_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace pccl {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// into[i] = f(d, local[i], incoming[i]) with vectors of T, an unsigned integer of the elements' size: f says what
// the bits mean.
template <typename T, typename F>
void walk(const Operands& operands, const F& f) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* const into = static_cast<T*>(operands.into);
  const T* const local = static_cast<const T*>(operands.local);
  const T* const incoming = static_cast<const T*>(operands.incoming);
  std::size_t i = 0;
  for (; i + lanes <= operands.count; i += lanes) {
    hn::StoreU(f(d, hn::LoadU(d, local + i), hn::LoadU(d, incoming + i)), d, into + i);
  }
  const std::size_t rest = operands.count - i;
  if (rest == 0) return;
  HWY_ALIGN T a[hn::MaxLanes(d)] = {};
  HWY_ALIGN T b[hn::MaxLanes(d)] = {};
  std::copy_n(local + i, rest, a);
  std::copy_n(incoming + i, rest, b);
  hn::Store(f(d, hn::Load(d, a), hn::Load(d, b)), d, a);
  std::copy_n(a, rest, into + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace pccl
HWY_AFTER_NAMESPACE();

#endif
