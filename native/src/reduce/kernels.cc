#include "reduce/kernels.h"

#include "reduce/operands.h"

namespace pccl {
namespace {

void combine_any(DType dtype, ReduceOp op, const Operands& operands) {
  (is_floating_point(dtype) ? combine_floats : combine_integers)(dtype, op, operands);
}

}  // namespace

void combine(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count) {
  combine_any(dtype, op, {into, local, incoming, count});
}

void combine_last(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count,
                  std::uint32_t contributions) {
  combine_any(dtype, op, {into, local, incoming, count, contributions});
}

}  // namespace pccl
