// An expert of a mixture-of-experts layer: two linear layers with a gated activation between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "gemm/multiply.h"
#include "moe/ffn/activation.h"

namespace pccl::moe {

struct ExpertShape {
  Activation activation = Activation::swiglu;
  DType dtype = DType::f32;  // or bf16: of weights, tokens and results; sums are f32, gradients of weights too
  std::size_t hidden = 0;    // D
  std::size_t inner = 0;     // H
};
// Of each size.
inline constexpr std::size_t expert_size_max = std::size_t{1} << 20;

struct ExpertTensor {
  std::string name;
  std::size_t elements = 0;
};
// What an expert's weights consist of, and likewise their gradients, row-major:
// swiglu, as linear layers of torch: gate [H][D], up [H][D], down [D][H];
// gpt_oss: gateUp [D][2H] with gates and ups alternating, gateUpBias [2H], down [H][D], downBias [D].
std::vector<ExpertTensor> expert_tensors(const ExpertShape& shape);

// How the packed weights of an expert lie in memory. What only gradients need comes last, so that the first
// inference_bytes are an expert for inference.
struct ExpertLayout {
  explicit ExpertLayout(const ExpertShape& shape);

  // Byte offsets, multiples of 64.
  struct Matrix {
    std::size_t offset = 0;
    std::size_t columns = 0;
    std::size_t depth = 0;
  };
  std::vector<Matrix> first;  // gate and up, or both in one: from hidden to inner
  Matrix second;              // from inner to hidden
  std::size_t first_bias = 0;
  std::size_t second_bias = 0;
  std::size_t inference_bytes = 0;
  std::vector<Matrix> first_transposed;
  Matrix second_transposed;
  std::size_t training_bytes = 0;
};

// tensors: pointers to the expert_tensors, in `dtype`. into: inference_bytes or, if it trains, training_bytes.
void pack_expert(const ExpertShape& shape, const std::vector<const void*>& tensors, bool trains, std::byte* into);

}  // namespace pccl::moe
