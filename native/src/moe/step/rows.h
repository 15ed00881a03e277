// Rows of tokens between a step's buffers, and the sums that a token's results become. Sums are in f32, in the order of
// the token's slots, so that they have the same bits whoever computed the results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "gemm/workspace.h"

namespace pccl::moe {

void gather_rows(const std::byte* from, std::span<const std::uint32_t> rows, std::size_t row_bytes, std::byte* into);

// The same, each row times its factor; f32 or bf16. `sums` is memory to compute in.
void gather_scaled_rows(DType dtype, const std::byte* from, std::span<const std::uint32_t> rows,
                        std::span<const float> factors, std::size_t width, gemm::AlignedArray<float>& sums,
                        std::byte* into);

// Something that is added to each token's sum: [tokens][width].
struct Addend {
  DType dtype = DType::f32;
  const void* rows = nullptr;
};

struct Combination {
  DType dtype = DType::f32;
  std::size_t width = 0;
  std::span<const std::uint32_t> first_slot;  // [tokens + 1]
  std::span<const std::uint32_t> places;      // [slots]: rows of `results`
  std::span<const float> gates;               // [slots], or empty: 1
  const void* results = nullptr;
  std::vector<Addend> addends;
};
// into[token] = the sum of gate · result over its slots, then the addends, in order; rounded once.
void combine(const Combination& combination, gemm::AlignedArray<float>& sums, void* into);

// By slot: the product of the token's row of `output_gradient` with its result, in f32, in a fixed order. Of the
// combination, gates and addends are not looked at.
void gate_gradients(const Combination& combination, const void* output_gradient, float* into);

void add_floats(const float* from, std::size_t count, float* into);

}  // namespace pccl::moe
