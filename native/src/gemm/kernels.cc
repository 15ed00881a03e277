// Vectors of unknown size can't be members of arrays; Arm CPUs that have them run the NEON version.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gemm/kernels.cc"
#include <hwy/foreach_target.h>
//
#include <algorithm>

#include <hwy/highway.h>
#include "base/check.h"
#include "gemm/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace pccl::gemm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using Floats = hn::ScalableTag<float>;
using Cells = hn::Repartition<Cell, Floats>;
using V = hn::Vec<Floats>;
using VCells = hn::Vec<Cells>;

// Sums, right-hand vectors and a factor must fit into the registers: 32 of them, or 16.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM
constexpr std::size_t rows_max = 12;
#else
constexpr std::size_t rows_max = 4;
#endif

HWY_INLINE V as_floats(VCells cells) { return hn::BitCast(Floats(), cells); }

struct F32 {
  using Factor = V;
  static HWY_INLINE Factor factor(VCells cells) { return as_floats(cells); }
  static HWY_INLINE V add_product(V sum, Factor left, Factor right) { return hn::MulAdd(left, right, sum); }
};

// On any CPU.
struct Bf16 {
  struct Factor {
    V first;
    V second;
  };
  static HWY_INLINE Factor factor(VCells cells) {
    return {as_floats(hn::ShiftLeft<16>(cells)), as_floats(hn::And(cells, hn::Set(Cells(), 0xffff0000u)))};
  }
  static HWY_INLINE V add_product(V sum, Factor left, Factor right) {
    return hn::MulAdd(left.first, right.first, hn::MulAdd(left.second, right.second, sum));
  }
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
// With the instruction for it. Highway 1.0 has no target for CPUs with AVX512_BF16, and without one the compiler has
// no intrinsic.
struct Bf16Instruction {
  using Factor = V;
  static HWY_INLINE Factor factor(VCells cells) { return as_floats(cells); }
  static HWY_INLINE V add_product(V sum, Factor left, Factor right) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(left.raw), "v"(right.raw));
    return sum;
  }
};
#endif

template <class Product, std::size_t rows>
HWY_NOINLINE void run_rows(const Tile& tile) {
  const Floats d;
  const Cells cells;
  const std::size_t lanes = hn::Lanes(d);
  V sums[rows][2];
#pragma GCC unroll 16
  for (std::size_t row = 0; row < rows; ++row) {
    sums[row][0] = hn::LoadU(d, tile.start + row * tile.start_stride);
    sums[row][1] = hn::LoadU(d, tile.start + row * tile.start_stride + lanes);
  }
  if (tile.next_into != nullptr) {
    for (std::size_t row = 0; row < rows; ++row) {
      __builtin_prefetch(tile.next_into + row * tile.into_stride, 1);
      __builtin_prefetch(tile.next_into + row * tile.into_stride + lanes, 1);
    }
  }
  const Cell* left = tile.left;
  const Cell* right = tile.right;
  const Cell* next = tile.next_right;
  for (std::size_t rest = tile.depth; rest > 0;) {
    const std::size_t turn = std::min(rest, turn_cells);
    rest -= turn;
    for (std::size_t line = 0; line < tile.next_lines; ++line, next += 64 / sizeof(Cell)) {
      __builtin_prefetch(next, 0, 2);
    }
    for (std::size_t cell = 0; cell < turn; ++cell, left += rows, right += panel_columns) {
      const auto first = Product::factor(hn::LoadU(cells, right));
      const auto second = Product::factor(hn::LoadU(cells, right + lanes));
#pragma GCC unroll 16
      for (std::size_t row = 0; row < rows; ++row) {
        const auto factor = Product::factor(hn::Set(cells, left[row]));
        sums[row][0] = Product::add_product(sums[row][0], factor, first);
        sums[row][1] = Product::add_product(sums[row][1], factor, second);
      }
    }
  }
#pragma GCC unroll 16
  for (std::size_t row = 0; row < rows; ++row) {
    float* const into = tile.into + row * tile.into_stride;
    if (tile.adds) {
      sums[row][0] = hn::Add(hn::LoadU(d, into), sums[row][0]);
      sums[row][1] = hn::Add(hn::LoadU(d, into + lanes), sums[row][1]);
    }
    hn::StoreU(sums[row][0], d, into);
    hn::StoreU(sums[row][1], d, into + lanes);
  }
}

template <class Product>
void run(std::size_t rows, const Tile& tile) {
  if constexpr (rows_max == 12) {
    if (rows == 12) return run_rows<Product, 12>(tile);
    if (rows == 8) return run_rows<Product, 8>(tile);
  }
  PCCL_CHECK(rows == 4);
  run_rows<Product, 4>(tile);
}

Kernel kernel_of(DType dtype) {
  const std::size_t columns = 2 * hn::Lanes(Floats());
  if (dtype != DType::bf16) return {rows_max, columns, run<F32>};
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  if (__builtin_cpu_supports("avx512bf16")) return {rows_max, columns, run<Bf16Instruction>};
#endif
  return {rows_max, columns, run<Bf16>};
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl::gemm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl::gemm {

HWY_EXPORT(kernel_of);

Kernel choose_kernel(DType dtype) { return HWY_DYNAMIC_DISPATCH(kernel_of)(dtype); }

}  // namespace pccl::gemm
#endif
