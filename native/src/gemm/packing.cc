#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gemm/packing.cc"
#include <hwy/foreach_target.h>
//
#include <algorithm>
#include <cstring>

#include <hwy/highway.h>
#include "gemm/packing.h"

HWY_BEFORE_NAMESPACE();
namespace pccl::gemm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using Four = hn::Full128<Cell>;

// `count` elements as one cell.
Cell load_cell(const std::byte* from, std::size_t bytes) {
  Cell cell = 0;
  std::memcpy(&cell, from, bytes);
  return cell;
}

// Four lines along the depth become cells side by side, `stride` cells from depth to depth.
HWY_INLINE void transpose_lines(const std::byte* const lines[row_step], std::size_t bytes, std::size_t stride,
                                Cell* into) {
  const Four d;
  const hn::Repartition<std::uint64_t, Four> pairs;
  const auto load = [&](std::size_t line, std::size_t at) HWY_ATTR {
    return hn::LoadU(d, reinterpret_cast<const Cell*>(lines[line] + at));
  };
  const auto join = [&](auto lower, auto upper) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveLower(pairs, hn::BitCast(pairs, lower), hn::BitCast(pairs, upper)));
  };
  const auto join_upper = [&](auto lower, auto upper) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveUpper(pairs, hn::BitCast(pairs, lower), hn::BitCast(pairs, upper)));
  };
  std::size_t at = 0;
  for (; at + 4 * sizeof(Cell) <= bytes; at += 4 * sizeof(Cell)) {
    const auto a = load(0, at);
    const auto b = load(1, at);
    const auto c = load(2, at);
    const auto e = load(3, at);
    const auto ab_lower = hn::InterleaveLower(d, a, b);
    const auto ab_upper = hn::InterleaveUpper(d, a, b);
    const auto ce_lower = hn::InterleaveLower(d, c, e);
    const auto ce_upper = hn::InterleaveUpper(d, c, e);
    hn::StoreU(join(ab_lower, ce_lower), d, into);
    hn::StoreU(join_upper(ab_lower, ce_lower), d, into + stride);
    hn::StoreU(join(ab_upper, ce_upper), d, into + 2 * stride);
    hn::StoreU(join_upper(ab_upper, ce_upper), d, into + 3 * stride);
    into += 4 * stride;
  }
  for (; at < bytes; at += sizeof(Cell), into += stride) {
    for (std::size_t line = 0; line < row_step; ++line) {
      into[line] = load_cell(lines[line] + at, std::min(sizeof(Cell), bytes - at));
    }
  }
}

// Bytes of each line that are packed before the next four lines have their turn: what they become stays in the
// first-level cache meanwhile.
constexpr std::size_t turn_bytes = 256;

constexpr std::byte no_line[turn_bytes] = {};

// The depth's neighbours are neighbours in memory.
void pack_along_depth(const Operand& operand, std::size_t panel_width, Cell* into) {
  const auto* const data = static_cast<const std::byte*>(operand.data);
  const std::size_t line_stride = operand.width_stride * element_bytes(operand.dtype);
  const std::size_t bytes = operand.depth * element_bytes(operand.dtype);
  for (std::size_t at = 0; at < bytes; at += turn_bytes, into += turn_bytes / sizeof(Cell) * panel_width) {
    const std::size_t count = std::min(turn_bytes, bytes - at);
    for (std::size_t first = 0; first < panel_width; first += row_step) {
      const std::byte* lines[row_step];
      for (std::size_t i = 0; i < row_step; ++i) {
        lines[i] = first + i < operand.width ? data + (first + i) * line_stride + at : no_line;
      }
      transpose_lines(lines, count, panel_width, into + first);
    }
  }
}

// Two lines of bf16, the second one null for zeros, as cells.
HWY_INLINE void interleave(const std::uint16_t* first, const std::uint16_t* second, std::size_t count, Cell* into) {
  const hn::Full128<std::uint16_t> d;
  const Four cells;
  std::size_t i = 0;
  if (second != nullptr) {
    for (; i + 8 <= count; i += 8) {
      const auto a = hn::LoadU(d, first + i);
      const auto b = hn::LoadU(d, second + i);
      hn::StoreU(hn::BitCast(cells, hn::InterleaveLower(d, a, b)), cells, into + i);
      hn::StoreU(hn::BitCast(cells, hn::InterleaveUpper(d, a, b)), cells, into + i + 4);
    }
  }
  for (; i < count; ++i) {
    into[i] = first[i] | static_cast<Cell>(second == nullptr ? 0 : second[i]) << 16;
  }
}

// The width's neighbours are neighbours in memory.
void pack_along_width(const Operand& operand, std::size_t panel_width, Cell* into) {
  const std::size_t cells = depth_cells(operand.dtype, operand.depth);
  for (std::size_t cell = 0; cell < cells; ++cell, into += panel_width) {
    if (operand.dtype == DType::bf16) {
      const auto* const first = static_cast<const std::uint16_t*>(operand.data) + 2 * cell * operand.depth_stride;
      interleave(first, 2 * cell + 1 < operand.depth ? first + operand.depth_stride : nullptr, operand.width, into);
    } else {
      std::memcpy(into, static_cast<const float*>(operand.data) + cell * operand.depth_stride,
                  operand.width * sizeof(Cell));
    }
    std::fill(into + operand.width, into + panel_width, 0);
  }
}

void pack_any_panel(const Operand& operand, std::size_t panel_width, Cell* into) {
  if (operand.depth_stride == 1) return pack_along_depth(operand, panel_width, into);
  pack_along_width(operand, panel_width, into);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl::gemm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl::gemm {

HWY_EXPORT(pack_any_panel);

void pack_panel(const Operand& operand, std::size_t panel_width, Cell* into) {
  HWY_DYNAMIC_DISPATCH(pack_any_panel)(operand, panel_width, into);
}

std::size_t packed_cells(DType dtype, std::size_t columns, std::size_t depth) {
  return (columns + panel_columns - 1) / panel_columns * panel_columns * depth_cells(dtype, depth);
}

void pack(const Operand& operand, Cell* into) {
  const std::size_t panel_cells = panel_columns * depth_cells(operand.dtype, operand.depth);
  for (std::size_t column = 0; column < operand.width; column += panel_columns, into += panel_cells) {
    const std::size_t columns = std::min(panel_columns, operand.width - column);
    pack_panel(operand.from(column, columns, 0, operand.depth), panel_columns, into);
  }
}

}  // namespace pccl::gemm
#endif
