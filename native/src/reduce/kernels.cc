#include "reduce/kernels.h"

#include <type_traits>

namespace pccl {
namespace {

template <typename T>
struct Sum {
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;  // wraps around, where signed overflow would be undefined
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    } else {
      return a + b;
    }
  }
};

template <typename T>
struct Average {
  T contributions;
  T operator()(T a, T b) const { return Sum<T>{}(a, b) / contributions; }
};

// `a != a` keeps a NaN of `a`; a NaN of `b` makes both comparisons false, and so is taken.
template <typename T>
struct Max {
  T operator()(T a, T b) const { return (a > b) | (a != a) ? a : b; }
};

template <typename T>
struct Min {
  T operator()(T a, T b) const { return (a < b) | (a != a) ? a : b; }
};

// Plain loops: the compiler vectorises them, and on chunks that lie in the cache even 16-byte vectors outrun the
// copies in and out of the kernel by far.
template <typename T, typename F>
void apply(F f, void* into, const void* local, const void* incoming, std::size_t count) {
  T* const out = static_cast<T*>(into);
  const T* const a = static_cast<const T*>(local);
  const T* const b = static_cast<const T*>(incoming);
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) out[i] = f(a[i], b[i]);
}

template <typename T>
void combine_as(ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count) {
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::avg:
      return apply<T>(Sum<T>{}, into, local, incoming, count);
    case ReduceOp::max:
      return apply<T>(Max<T>{}, into, local, incoming, count);
    case ReduceOp::min:
      return apply<T>(Min<T>{}, into, local, incoming, count);
  }
}

template <typename T>
void combine_last_as(ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count,
                     std::uint32_t contributions) {
  if (op == ReduceOp::avg) {
    return apply<T>(Average<T>{static_cast<T>(contributions)}, into, local, incoming, count);
  }
  combine_as<T>(op, into, local, incoming, count);
}

}  // namespace

const char* reduce_op_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::avg:
      return "avg";
    case ReduceOp::max:
      return "max";
    case ReduceOp::min:
      return "min";
  }
  return "?";
}

void combine(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count) {
  switch (dtype) {
    case DType::f32:
      return combine_as<float>(op, into, local, incoming, count);
    case DType::f64:
      return combine_as<double>(op, into, local, incoming, count);
    case DType::i32:
      return combine_as<std::int32_t>(op, into, local, incoming, count);
  }
}

void combine_last(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count,
                  std::uint32_t contributions) {
  switch (dtype) {
    case DType::f32:
      return combine_last_as<float>(op, into, local, incoming, count, contributions);
    case DType::f64:
      return combine_last_as<double>(op, into, local, incoming, count, contributions);
    case DType::i32:
      return combine_last_as<std::int32_t>(op, into, local, incoming, count, contributions);
  }
}

}  // namespace pccl
