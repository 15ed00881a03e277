#include "moe/ffn/expert.h"

#include <cstring>

#include "base/check.h"
#include "gemm/packing.h"

namespace pccl::moe {

namespace {

constexpr std::size_t alignment = 64;

std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

gemm::Cell* cells_at(std::byte* packed, std::size_t offset) {
  return reinterpret_cast<gemm::Cell*>(packed + offset);
}

// Widened to f32.
void copy_bias(DType dtype, const void* from, std::size_t count, std::byte* into) {
  if (dtype == DType::f32) {
    std::memcpy(into, from, count * sizeof(float));
    return;
  }
  widen_bf16(static_cast<const std::uint16_t*>(from), count, reinterpret_cast<float*>(into));
}

}  // namespace

std::vector<ExpertTensor> expert_tensors(const ExpertShape& shape) {
  const std::size_t elements = shape.hidden * shape.inner;
  if (shape.activation == Activation::swiglu) return {{"gate", elements}, {"up", elements}, {"down", elements}};
  return {{"gateUp", 2 * elements}, {"gateUpBias", 2 * shape.inner}, {"down", elements}, {"downBias", shape.hidden}};
}

ExpertLayout::ExpertLayout(const ExpertShape& shape) {
  std::size_t end = 0;
  const auto take = [&](std::size_t bytes) {
    const std::size_t offset = end;
    end = aligned(end + bytes);
    return offset;
  };
  const auto take_matrix = [&](std::size_t columns, std::size_t depth) {
    return Matrix{take(gemm::packed_cells(shape.dtype, columns, depth) * sizeof(gemm::Cell)), columns, depth};
  };
  const bool is_one = shape.activation == Activation::gpt_oss;
  const std::size_t matrices = is_one ? 1 : 2;
  const std::size_t columns = is_one ? 2 * shape.inner : shape.inner;
  for (std::size_t i = 0; i < matrices; ++i) first.push_back(take_matrix(columns, shape.hidden));
  second = take_matrix(shape.hidden, shape.inner);
  if (is_one) {
    first_bias = take(2 * shape.inner * sizeof(float));
    second_bias = take(shape.hidden * sizeof(float));
  }
  inference_bytes = end;
  for (std::size_t i = 0; i < matrices; ++i) first_transposed.push_back(take_matrix(shape.hidden, columns));
  second_transposed = take_matrix(shape.inner, shape.hidden);
  training_bytes = end;
}

void pack_expert(const ExpertShape& shape, const std::vector<const void*>& tensors, bool trains, std::byte* into) {
  const ExpertLayout layout(shape);
  PCCL_CHECK(tensors.size() == expert_tensors(shape).size());
  const bool by_output = shape.activation == Activation::swiglu;
  // A linear layer with its inputs and outputs, stored with a row for each output or for each input.
  const auto pack_both = [&](const void* weights, const ExpertLayout::Matrix& matrix,
                             const ExpertLayout::Matrix& transposed) {
    const std::size_t outputs = matrix.columns;
    const std::size_t inputs = matrix.depth;
    const std::size_t output_stride = by_output ? inputs : 1;
    const std::size_t input_stride = by_output ? 1 : outputs;
    gemm::pack({shape.dtype, weights, outputs, inputs, output_stride, input_stride}, cells_at(into, matrix.offset));
    if (!trains) return;
    gemm::pack({shape.dtype, weights, inputs, outputs, input_stride, output_stride},
               cells_at(into, transposed.offset));
  };
  for (std::size_t i = 0; i < layout.first.size(); ++i) {
    pack_both(tensors[i], layout.first[i], layout.first_transposed[i]);
  }
  pack_both(tensors[2], layout.second, layout.second_transposed);
  if (by_output) return;
  copy_bias(shape.dtype, tensors[1], 2 * shape.inner, into + layout.first_bias);
  copy_bias(shape.dtype, tensors[3], shape.hidden, into + layout.second_bias);
}

}  // namespace pccl::moe
