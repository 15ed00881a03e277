// The gradient of a bias: sums over tokens, in the same blocks and order as those of weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gemm/operand.h"

namespace pccl::gemm {

// into[i] += the sum of column i over rows of f32 or bf16, the first of which has the global position first_position;
// for each block of gradient_block positions there is one sum.
void add_column_sums(DType dtype, const void* rows, std::size_t count, std::size_t columns,
                     std::uint64_t first_position, float* into);

}  // namespace pccl::gemm
