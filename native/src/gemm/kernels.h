// The innermost part of a matrix product: a few rows times two vectors of columns, with every sum in a register.
#pragma once

#include <cstddef>

#include "gemm/operand.h"

namespace pccl::gemm {

struct Tile {
  const Cell* left = nullptr;   // [depth][rows]
  const Cell* right = nullptr;  // [depth][panel_columns], from the tile's first column on
  std::size_t depth = 0;        // in cells
  // What the sums begin with, one line per row; a stride of 0 repeats the first.
  const float* start = nullptr;
  std::size_t start_stride = 0;
  float* into = nullptr;
  std::size_t into_stride = 0;
  bool adds = false;  // to what is there, instead of replacing it
  // What comes next, to be fetched meanwhile: 64 bytes times this every few cells, and the next tile's results.
  const Cell* next_right = nullptr;
  std::size_t next_lines = 0;
  const float* next_into = nullptr;
};

struct Kernel {
  std::size_t rows_max = 0;
  std::size_t columns = 0;  // divides panel_columns
  // rows: a multiple of row_step, rows_max at most.
  void (*run)(std::size_t rows, const Tile& tile) = nullptr;
};

// Cells between two fetches of what comes next.
inline constexpr std::size_t turn_cells = 16;

// f32 or bf16: the fastest version that this CPU can run, always the same one.
//
// Each result is one sum in the order of the depth. f32: a fused multiply-add for each element, so that all CPUs that
// have it give the same bits. bf16: products are exact in f32; of every two elements the second is added first, as the
// instruction VDPBF16PS does, so that all CPUs give the same bits, except that VDPBF16PS takes subnormal numbers for
// zeros.
Kernel choose_kernel(DType dtype);

}  // namespace pccl::gemm
