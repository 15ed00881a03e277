#include "gemm/multiply.h"

#include <algorithm>

#include "base/check.h"
#include "gemm/kernels.h"
#include "gemm/packing.h"

namespace pccl::gemm {

namespace {

// A block of the left-hand matrix, packed, stays in the second-level cache while the panels of the right one pass by.
constexpr std::size_t block_depth = 1024;  // in cells
constexpr std::size_t block_cells = 192 * block_depth;
constexpr std::size_t block_rows_max = 384;
constexpr std::size_t rows_max = 12;  // of any kernel
static_assert(gradient_block <= block_depth);

// To a depth in cells.
std::size_t rows_per_block(std::size_t depth) {
  return std::min(block_rows_max, block_cells / std::min(depth, block_depth) / rows_max * rows_max);
}

struct Start {
  const float* data = nullptr;  // null: zeros
  std::size_t stride = 0;       // 0: the same line for every row
};

constexpr float zeros[panel_columns] = {};

// One block of the left-hand matrix times all panels of the right one, to the depth of that block.
struct BlockProduct {
  Kernel kernel;
  const Cell* left = nullptr;  // slivers, each [depth][rows of the sliver]
  std::size_t rows = 0;
  const Cell* right = nullptr;  // of the first panel, at the block's depth
  std::size_t panel_cells = 0;
  std::size_t columns = 0;
  std::size_t depth = 0;  // in cells
  Start start;
  Results into;
  bool adds = false;

  // Rows are dealt to slivers in steps, as evenly as can be.
  std::size_t steps() const { return (rows + row_step - 1) / row_step; }
  std::size_t slivers() const {
    const std::size_t steps_max = kernel.rows_max / row_step;
    return (steps() + steps_max - 1) / steps_max;
  }
  std::size_t first_row(std::size_t sliver) const { return steps() * sliver / slivers() * row_step; }

  void pack_left(const Operand& operand, Cell* into_cells) {
    left = into_cells;
    for (std::size_t sliver = 0; sliver < slivers(); ++sliver) {
      const std::size_t row = first_row(sliver);
      const std::size_t width = first_row(sliver + 1) - row;
      pack_panel(operand.from(row, std::min(width, rows - row), 0, operand.depth), width, into_cells);
      into_cells += width * depth;
    }
  }

  void run() const {
    for (std::size_t column = 0; column < columns; column += panel_columns) {
      const Cell* const panel = right + column / panel_columns * panel_cells;
      const Cell* next = column + panel_columns < columns ? panel + panel_cells : nullptr;
      for (std::size_t part = 0; part < panel_columns && column + part < columns; part += kernel.columns) {
        run_columns(column + part, panel + part, next);
        next = nullptr;
      }
    }
  }

 private:
  // All rows, and as many columns as the kernel takes.
  void run_columns(std::size_t column, const Cell* panel, const Cell* next_panel) const {
    const std::size_t count = slivers();
    const std::size_t lines_per_turn = turn_cells * panel_columns * sizeof(Cell) / 64;
    const std::size_t turns = (depth + turn_cells - 1) / turn_cells;
    Tile tile;
    tile.right = panel;
    tile.depth = depth;
    tile.left = left;
    tile.adds = adds;
    if (next_panel != nullptr) {
      tile.next_right = next_panel;
      tile.next_lines = (lines_per_turn + count - 1) / count;
    }
    for (std::size_t sliver = 0; sliver < count; ++sliver) {
      const std::size_t row = first_row(sliver);
      const std::size_t height = first_row(sliver + 1) - row;
      run_tile(tile, row, height, column);
      tile.left += height * depth;
      if (next_panel != nullptr) tile.next_right += turns * tile.next_lines * 64 / sizeof(Cell);
    }
  }

  void run_tile(Tile tile, std::size_t row, std::size_t height, std::size_t column) const {
    float* const target = into.data + row * into.stride + column;
    const float* const begin = start.data == nullptr ? zeros : start.data + row * start.stride + column;
    const std::size_t rows_there = std::min(height, rows - row);
    const std::size_t columns_there = std::min(kernel.columns, columns - column);
    if (rows_there == height && columns_there == kernel.columns) {
      tile.start = begin;
      tile.start_stride = start.stride;
      tile.into = target;
      tile.into_stride = into.stride;
      if (row + 2 * height <= rows) tile.next_into = target + height * into.stride;
      return kernel.run(height, tile);
    }
    // At the edges a tile has its own memory.
    float edge[rows_max * panel_columns] = {};
    for (std::size_t i = 0; start.data != nullptr && i < rows_there; ++i) {
      std::copy_n(begin + i * start.stride, columns_there, edge + i * panel_columns);
    }
    tile.start = edge;
    tile.start_stride = panel_columns;
    tile.into = edge;
    tile.into_stride = panel_columns;
    tile.adds = false;
    kernel.run(height, tile);
    for (std::size_t i = 0; i < rows_there; ++i) {
      const float* const from = edge + i * panel_columns;
      float* const to = target + i * into.stride;
      for (std::size_t j = 0; j < columns_there; ++j) to[j] = adds ? to[j] + from[j] : from[j];
    }
  }
};

void multiply_from(Start start, const Operand& left, const PackedMatrix& right, Results into, Workspace& workspace) {
  PCCL_CHECK(left.depth == right.depth);
  const DType dtype = left.dtype;
  const std::size_t elements = block_depth * cell_elements(dtype);
  const std::size_t block_rows = rows_per_block(depth_cells(dtype, left.depth));
  Cell* const left_cells = workspace.left.reserve(block_cells);
  BlockProduct block;
  block.kernel = choose_kernel(dtype);
  block.panel_cells = panel_columns * depth_cells(dtype, right.depth);
  block.columns = right.columns;
  for (std::size_t row = 0; row < left.width; row += block_rows) {
    block.rows = std::min(block_rows, left.width - row);
    block.into = {into.data + row * into.stride, into.stride};
    block.start = start;
    if (start.data != nullptr) block.start.data += row * start.stride;
    for (std::size_t depth = 0; depth < left.depth; depth += elements) {
      const std::size_t depths = std::min(elements, left.depth - depth);
      block.depth = depth_cells(dtype, depths);
      block.right = right.cells + depth / cell_elements(dtype) * panel_columns;
      block.pack_left(left.from(row, block.rows, depth, depths), left_cells);
      block.run();
      block.start = {block.into.data, block.into.stride};
    }
  }
}

}  // namespace

void multiply(const Operand& left, const PackedMatrix& right, const float* bias, Results into, Workspace& workspace) {
  multiply_from({bias, 0}, left, right, into, workspace);
}

void multiply_further(const Operand& left, const PackedMatrix& right, Results into, Workspace& workspace) {
  multiply_from({into.data, into.stride}, left, right, into, workspace);
}

void add_gradient(const Operand& left, const Operand& right, std::uint64_t first_position, Results into,
                  Workspace& workspace) {
  PCCL_CHECK(left.depth == right.depth && left.dtype == right.dtype);
  const DType dtype = left.dtype;
  Cell* const left_cells = workspace.left.reserve(block_cells);
  Cell* const right_cells = workspace.right.reserve(packed_cells(dtype, right.width, gradient_block));
  const std::size_t block_rows = rows_per_block(depth_cells(dtype, gradient_block));
  BlockProduct block;
  block.kernel = choose_kernel(dtype);
  block.columns = right.width;
  block.right = right_cells;
  block.adds = true;
  for (std::size_t token = 0; token < left.depth;) {
    const auto place = static_cast<std::size_t>((first_position + token) % gradient_block);
    const std::size_t tokens = std::min(left.depth - token, gradient_block - place);
    block.depth = depth_cells(dtype, tokens);
    block.panel_cells = panel_columns * block.depth;
    pack(right.from(0, right.width, token, tokens), right_cells);
    for (std::size_t row = 0; row < left.width; row += block_rows) {
      block.rows = std::min(block_rows, left.width - row);
      block.into = {into.data + row * into.stride, into.stride};
      block.pack_left(left.from(row, block.rows, token, tokens), left_cells);
      block.run();
    }
    token += tokens;
  }
}

}  // namespace pccl::gemm
