#include "gemm/column_sums.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "gemm/multiply.h"

namespace pccl::gemm {

namespace {

float value(float number) { return number; }
float value(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

template <typename T>
void add(const T* rows, std::size_t count, std::size_t columns, std::uint64_t first_position, float* into) {
  std::vector<float> sums(columns);
  for (std::size_t row = 0; row < count;) {
    const auto place = static_cast<std::size_t>((first_position + row) % gradient_block);
    const std::size_t end = std::min(count, row + gradient_block - place);
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (; row < end; ++row) {
      const T* const line = rows + row * columns;
      for (std::size_t i = 0; i < columns; ++i) sums[i] += value(line[i]);
    }
    for (std::size_t i = 0; i < columns; ++i) into[i] += sums[i];
  }
}

}  // namespace

void add_column_sums(DType dtype, const void* rows, std::size_t count, std::size_t columns,
                     std::uint64_t first_position, float* into) {
  if (dtype == DType::bf16) {
    return add(static_cast<const std::uint16_t*>(rows), count, columns, first_position, into);
  }
  add(static_cast<const float*>(rows), count, columns, first_position, into);
}

}  // namespace pccl::gemm
