// What every kernel is given.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace pccl {

struct Operands {
  void* into = nullptr;
  const void* local = nullptr;
  const void* incoming = nullptr;
  std::size_t count = 0;
  // For avg: what a sum is divided by; 1 to leave it a sum.
  std::uint32_t divisor = 1;
};

// Each has the fastest version that this CPU can run, chosen when it is first called.
void combine_floats(DType dtype, ReduceOp op, const Operands& operands);
void combine_integers(DType dtype, ReduceOp op, const Operands& operands);

}  // namespace pccl
