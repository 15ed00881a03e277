// f32 elements in fewer bytes and back. layout.h says how they lie there, docs/quantization.md how far they are off.
//
// What comes out follows from the elements, the quantization, the stream and the place in the array alone: neither the
// CPU nor how an array is cut into calls makes a difference, as long as each call begins at a block of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "pccl/quantization.h"

namespace pccl {

// Which of several quantizations of one array: stochastic rounding is independent in each.
using QuantizationStream = std::uint64_t;

// Writes quantized_bytes(quantization, from.size()) bytes. `first_element` is the array's, a multiple of the block.
void quantize(const Quantization& quantization, QuantizationStream stream, std::uint64_t first_element,
              std::span<const float> from, std::uint8_t* into);

// False: the length is not that of so many elements, or a header is none that quantize writes. Then `into` has
// anything in it.
bool dequantize(const Quantization& quantization, std::span<const std::uint8_t> from, std::span<float> into);

// Whether all are finite, and stay so: f16 has numbers up to 65504, and those of bf16 end a little before f32's.
bool stays_finite(const Quantization& quantization, std::span<const float> values);

}  // namespace pccl
