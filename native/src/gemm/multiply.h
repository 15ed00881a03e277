// Matrix products whose results don't depend on what else is computed with them: each element is one sum over the
// depth in its order, whatever the number of rows and columns, its own place among them, and what the others hold.
// So a row has the same bits in any batch, on any thread and on any rank whose CPU is of the same kind (kernels.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "gemm/operand.h"
#include "gemm/workspace.h"

namespace pccl::gemm {

// A right-hand matrix, packed by pack().
struct PackedMatrix {
  const Cell* cells = nullptr;
  std::size_t columns = 0;
  std::size_t depth = 0;
};

struct Results {
  float* data = nullptr;
  std::size_t stride = 0;  // elements from row to row
};

// into = left · right + bias: left's width is the rows; bias has a number for each column, or is null. The sums begin
// with the bias.
void multiply(const Operand& left, const PackedMatrix& right, const float* bias, Results into, Workspace& workspace);
// The same, with sums that begin with what is in `into`.
void multiply_further(const Operand& left, const PackedMatrix& right, Results into, Workspace& workspace);

// Tokens whose products make up one sum of a weight gradient.
inline constexpr std::size_t gradient_block = 512;

// into += leftᵀ · right, the gradient of weights: the depth of both is the tokens, the first of which has the global
// position first_position. Positions are divided into blocks of gradient_block; for each block that the tokens have a
// part in, in order, the sum over its tokens is added to `into`. So a list of tokens may be cut at multiples of
// gradient_block without a change of bits.
void add_gradient(const Operand& left, const Operand& right, std::uint64_t first_position, Results into,
                  Workspace& workspace);

}  // namespace pccl::gemm
