// What the matrix products work on: matrices in the caller's layout, and in panels as the kernels read them.
//
// Along the dimension that a product sums over (its depth), numbers are gathered in cells of 32 bits: one f32, or two
// bf16 that follow each other. With an odd depth the last cell of bf16 is filled up with a zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace pccl::gemm {

using Cell = std::uint32_t;

// Columns of the right-hand matrix that lie side by side. The same on every CPU, so that packed weights can be sent
// to another machine.
inline constexpr std::size_t panel_columns = 32;
// Rows of the left-hand matrix come in multiples of this; the rest is zeros whose products are dropped.
inline constexpr std::size_t row_step = 4;

constexpr std::size_t cell_elements(DType dtype) { return dtype == DType::bf16 ? 2 : 1; }
constexpr std::size_t depth_cells(DType dtype, std::size_t depth) {
  return (depth + cell_elements(dtype) - 1) / cell_elements(dtype);
}

// A matrix of f32 or bf16 in the caller's memory. Its width becomes the rows (left) or the columns (right) of a
// product. One of the strides, which count elements, is 1.
struct Operand {
  DType dtype = DType::f32;
  const void* data = nullptr;
  std::size_t width = 0;
  std::size_t depth = 0;
  std::size_t width_stride = 1;
  std::size_t depth_stride = 1;

  // The part that begins at an element.
  Operand from(std::size_t first_width, std::size_t widths, std::size_t first_depth, std::size_t depths) const {
    const std::size_t offset = first_width * width_stride + first_depth * depth_stride;
    return {dtype, static_cast<const std::byte*>(data) + offset * element_bytes(dtype), widths, depths,
            width_stride, depth_stride};
  }
};

}  // namespace pccl::gemm
