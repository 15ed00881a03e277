// Matrices as the kernels read them: panels of some columns (or rows), in which the cells of one depth lie side by
// side. What a panel has more than the matrix is zeros.
#pragma once

#include <cstddef>

#include "gemm/operand.h"

namespace pccl::gemm {

// [depth cells][panel_width]; the operand's width is at most panel_width, a multiple of row_step.
void pack_panel(const Operand& operand, std::size_t panel_width, Cell* into);

// Cells of a right-hand matrix in panels of panel_columns.
std::size_t packed_cells(DType dtype, std::size_t columns, std::size_t depth);
// [panels][depth cells][panel_columns]; `into` has packed_cells, best at a multiple of 64 bytes.
void pack(const Operand& operand, Cell* into);

}  // namespace pccl::gemm
