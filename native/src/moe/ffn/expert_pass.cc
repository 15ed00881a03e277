#include "moe/ffn/expert_pass.h"

#include <algorithm>

#include "base/check.h"
#include "gemm/column_sums.h"

namespace pccl::moe {

namespace {

constexpr std::size_t forward_block = 384;
// A block of the backward pass has a part in one block of the gradients' sums only.
constexpr std::size_t backward_block = gemm::gradient_block;

gemm::PackedMatrix matrix_of(const std::byte* packed, const ExpertLayout::Matrix& matrix) {
  return {reinterpret_cast<const gemm::Cell*>(packed + matrix.offset), matrix.columns, matrix.depth};
}

const float* bias_of(const ExpertShape& shape, const std::byte* packed, std::size_t offset) {
  return shape.activation == Activation::gpt_oss ? reinterpret_cast<const float*>(packed + offset) : nullptr;
}

const std::byte* row_of(const void* rows, std::size_t row, std::size_t row_bytes) {
  return static_cast<const std::byte*>(rows) + row * row_bytes;
}
std::byte* row_of(void* rows, std::size_t row, std::size_t row_bytes) {
  return static_cast<std::byte*>(rows) + row * row_bytes;
}

// The product's left-hand side: tokens are the rows.
gemm::Operand tokens_of(DType dtype, const void* rows, std::size_t count, std::size_t columns, std::size_t stride) {
  return {dtype, rows, count, columns, stride, 1};
}
// Either side of a gradient: tokens are the depth.
gemm::Operand columns_of(DType dtype, const void* rows, std::size_t count, std::size_t columns, std::size_t stride) {
  return {dtype, rows, columns, count, 1, stride};
}

// Where the sums of a product of `columns` columns go, so that the results are at `target`: f32 straight there, bf16
// by way of `sums`.
float* sums_for(DType dtype, std::byte* target, float* sums) {
  return dtype == DType::f32 ? reinterpret_cast<float*>(target) : sums;
}
void finish_sums(DType dtype, const float* sums, std::size_t count, std::byte* target) {
  if (dtype == DType::bf16) round_to_bf16(sums, count, reinterpret_cast<std::uint16_t*>(target));
}

}  // namespace

void run_forward(const ForwardPass& pass, ExpertWorkspace& workspace, const std::atomic<bool>& stopped) {
  const auto& [activation, dtype, hidden, inner] = pass.shape;
  const ExpertLayout layout(pass.shape);
  const std::size_t element = element_bytes(dtype);
  const std::size_t block_max = std::min(pass.tokens, forward_block);
  float* const sums = workspace.sums.reserve(block_max * std::max(2 * inner, hidden));
  std::byte* const activated = workspace.activated.reserve(block_max * inner * element);
  std::byte* own_preactivations = nullptr;
  if (pass.preactivations == nullptr) {
    own_preactivations = workspace.preactivations.reserve(block_max * 2 * inner * element);
  }
  for (std::size_t token = 0; token < pass.tokens && !stopped; token += forward_block) {
    const std::size_t count = std::min(forward_block, pass.tokens - token);
    const gemm::Operand x =
        tokens_of(dtype, row_of(pass.x, token, hidden * element), count, hidden, hidden);
    std::byte* const preactivations = own_preactivations != nullptr
                                          ? own_preactivations
                                          : row_of(pass.preactivations, token, 2 * inner * element);
    float* const first_sums = sums_for(dtype, preactivations, sums);
    std::size_t column = 0;
    for (const ExpertLayout::Matrix& matrix : layout.first) {
      gemm::multiply(x, matrix_of(pass.packed, matrix), bias_of(pass.shape, pass.packed, layout.first_bias),
                     {first_sums + column, 2 * inner}, workspace.products);
      column += matrix.columns;
    }
    finish_sums(dtype, first_sums, count * 2 * inner, preactivations);
    activate(activation, dtype, count, inner, preactivations, activated);
    std::byte* const y = row_of(pass.y, token, hidden * element);
    float* const second_sums = sums_for(dtype, y, sums);
    gemm::multiply(tokens_of(dtype, activated, count, inner, inner), matrix_of(pass.packed, layout.second),
                   bias_of(pass.shape, pass.packed, layout.second_bias), {second_sums, hidden}, workspace.products);
    finish_sums(dtype, second_sums, count * hidden, y);
  }
}

namespace {

// The gradients of all weights for one block of tokens.
void add_gradients(const BackwardPass& pass, std::size_t token, std::size_t count, const std::byte* activated,
                   const std::byte* preactivation_gradient, gemm::Workspace& workspace) {
  const auto& [activation, dtype, hidden, inner] = pass.shape;
  const std::size_t element = element_bytes(dtype);
  const std::uint64_t position = pass.first_position + token;
  const gemm::Operand x = columns_of(dtype, row_of(pass.x, token, hidden * element), count, hidden, hidden);
  const std::byte* const dy_rows = row_of(pass.y_gradient, token, hidden * element);
  const gemm::Operand dy = columns_of(dtype, dy_rows, count, hidden, hidden);
  const gemm::Operand a = columns_of(dtype, activated, count, inner, inner);
  const gemm::Operand dh = columns_of(dtype, preactivation_gradient, count, 2 * inner, 2 * inner);
  if (activation == Activation::swiglu) {
    gemm::add_gradient(dh.from(0, inner, 0, count), x, position, {pass.gradients[0], hidden}, workspace);
    gemm::add_gradient(dh.from(inner, inner, 0, count), x, position, {pass.gradients[1], hidden}, workspace);
    gemm::add_gradient(dy, a, position, {pass.gradients[2], inner}, workspace);
    return;
  }
  gemm::add_gradient(x, dh, position, {pass.gradients[0], 2 * inner}, workspace);
  gemm::add_column_sums(dtype, preactivation_gradient, count, 2 * inner, position, pass.gradients[1]);
  gemm::add_gradient(a, dy, position, {pass.gradients[2], hidden}, workspace);
  gemm::add_column_sums(dtype, dy_rows, count, hidden, position, pass.gradients[3]);
}

}  // namespace

void run_backward(const BackwardPass& pass, ExpertWorkspace& workspace, const std::atomic<bool>& stopped) {
  const auto& [activation, dtype, hidden, inner] = pass.shape;
  PCCL_CHECK(pass.gradients.size() == expert_tensors(pass.shape).size());
  const ExpertLayout layout(pass.shape);
  const std::size_t element = element_bytes(dtype);
  const std::size_t block_max = std::min(pass.tokens, backward_block);
  float* const sums = workspace.sums.reserve(block_max * std::max(inner, hidden));
  std::byte* const activated = workspace.activated.reserve(block_max * inner * element);
  std::byte* const preactivation_gradient = workspace.preactivations.reserve(block_max * 2 * inner * element);
  for (std::size_t token = 0; token < pass.tokens && !stopped;) {
    const auto place = static_cast<std::size_t>((pass.first_position + token) % backward_block);
    const std::size_t count = std::min(backward_block - place, pass.tokens - token);
    gemm::multiply(tokens_of(dtype, row_of(pass.y_gradient, token, hidden * element), count, hidden, hidden),
                   matrix_of(pass.packed, layout.second_transposed), nullptr, {sums, inner}, workspace.products);
    differentiate(activation, dtype, count, inner, row_of(pass.preactivations, token, 2 * inner * element), sums,
                  activated, preactivation_gradient);
    std::byte* const dx = row_of(pass.x_gradient, token, hidden * element);
    float* const dx_sums = sums_for(dtype, dx, sums);
    std::size_t column = 0;
    for (const ExpertLayout::Matrix& matrix : layout.first_transposed) {
      const gemm::Operand dh = tokens_of(dtype, preactivation_gradient + column * element, count,
                                         matrix.depth, 2 * inner);
      if (column == 0) {
        gemm::multiply(dh, matrix_of(pass.packed, matrix), nullptr, {dx_sums, hidden}, workspace.products);
      } else {
        gemm::multiply_further(dh, matrix_of(pass.packed, matrix), {dx_sums, hidden}, workspace.products);
      }
      column += matrix.depth;
    }
    finish_sums(dtype, dx_sums, count * hidden, dx);
    add_gradients(pass, token, count, activated, preactivation_gradient, workspace.products);
    token += count;
  }
}

}  // namespace pccl::moe
