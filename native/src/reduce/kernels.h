// The arithmetic of an all-reduce: how two contributions become one. docs/decisions has why it is as it is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace pccl {

// into[i] = local[i] (op) incoming[i], with the same bits on every CPU. `into` may be `local`; `incoming` overlaps
// neither. All are aligned to an element.
//
// Integers: sum and prod wrap around. Floating point: every operation rounds to nearest, ties to even; f16 and bf16
// are computed in f32 and rounded once per call; a NaN on either side gives NaN (positive, quiet, no payload), for
// max and min too, and -0 is less than +0. avg adds.
void combine(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count);

// What the owner of a slice does with the last contribution: combine, and for avg also divide by `contributions`,
// which is 1 to limits::group_size_max (integers: the sum, wrapped around, towards zero).
void combine_last(DType dtype, ReduceOp op, void* into, const void* local, const void* incoming, std::size_t count,
                  std::uint32_t contributions);

}  // namespace pccl
