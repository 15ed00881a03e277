// What an expert does between its two layers, one element at a time: an element's result depends on its own gate and
// up alone, not on its place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace pccl::moe {

enum class Activation : std::uint8_t {
  // up · silu(gate). A row of preactivations is all gates, then all ups.
  swiglu,
  // (up + 1) · gate · sigmoid(1.702 gate), with gate at most 7 and up in [-7, 7]. Gates and ups alternate.
  gpt_oss,
};

// preactivations is [rows][2 · inner], activated [rows][inner]; both f32 or bf16.
void activate(Activation activation, DType dtype, std::size_t rows, std::size_t inner, const void* preactivations,
              void* activated);

// Given the gradient by the activated numbers, [rows][inner] of f32: that by the preactivations, and the activated
// numbers again, which the gradient of the second layer's weights takes.
void differentiate(Activation activation, DType dtype, std::size_t rows, std::size_t inner, const void* preactivations,
                   const float* activated_gradient, void* activated, void* preactivation_gradient);

// To nearest, ties to even; NaN becomes the positive quiet one.
void round_to_bf16(const float* from, std::size_t count, std::uint16_t* into);
void widen_bf16(const std::uint16_t* from, std::size_t count, float* into);

}  // namespace pccl::moe
