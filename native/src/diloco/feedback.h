// What a contribution loses on the wire, kept and added to the next one (error feedback). Of quantized contributions,
// and of sparse ones, of which each chunk's greatest elements are sent (SparseLoCo, arXiv:2508.15706).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "pccl/quantization.h"

namespace pccl::diloco {

// With c = values + decay error: values become what is left of c after it was quantized and back, error the rest.
void quantize_with_feedback(const Quantization& quantization, float decay, std::span<float> values,
                            std::span<float> error);

// Elements of which the greatest are chosen; their indices in a chunk take two bytes.
inline constexpr std::size_t sparse_chunk = 4096;

// Of each chunk: a scale (f32), indices (u16, rising) and codes (i8) of `keep` elements, or of all if it has fewer.
std::size_t sparse_bytes(std::size_t count, std::size_t keep);

// As quantize_with_feedback; `into` has sparse_bytes.
void sparsify_with_feedback(std::size_t keep, float decay, std::span<float> values, std::span<float> error,
                            std::span<std::uint8_t> into);

// sum += factor times what the bytes stand for. False if they are none that sparsify writes; the sum is then partial.
bool add_sparse(std::span<const std::uint8_t> bytes, std::size_t keep, float factor, std::span<float> sum);

}  // namespace pccl::diloco
