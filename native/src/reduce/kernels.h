// The arithmetic of an all-reduce: how two contributions become one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "pccl/engine.h"

namespace pccl {

const char* reduce_op_name(ReduceOp op);

// into[i] = local[i] (op) incoming[i]. `into` may be `local`; `incoming` overlaps neither. i32 sums wrap around;
// max and min give NaN where either side is NaN; avg adds.
void combine(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count);

// What the owner of a slice does with the last contribution: combine, and for avg also divide by `contributions`
// (i32: towards zero).
void combine_last(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count,
                  std::uint32_t contributions);

}  // namespace pccl
