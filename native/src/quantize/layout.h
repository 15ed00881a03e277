// How quantized elements lie in memory and on the wire, little-endian: blocks, one after the other, each a header and
// a code per element. The last block may be shorter.
//
//   u8, i8, i4    header: a f32, step f32   a is the offset (min_max) or the zero point (zero_point, an integer)
//   fp8           header: step f32
//   bf16, f16     no header, and so no blocks
//
// The value of code c is offset + (c - zero point) · step; of an fp8 its number times the step. i8 is u8 less 128.
// i4: byte j has the code of element j in its lower half and that of element j + ⌈n/2⌉ in the upper one.
//
// A step with its sign set marks a block that has NaN or infinities in it. Its three highest codes, or for fp8 ±448,
// stand for them, so that all blocks are equally long.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/quantization.h"

namespace pccl {

std::size_t block_header_bytes(QuantizedFormat format);
// Of the codes of so many elements of one block.
std::size_t code_bytes(QuantizedFormat format, std::size_t elements);
// Of so many elements from a block's beginning on.
std::uint64_t quantized_bytes(const Quantization& quantization, std::uint64_t elements);

}  // namespace pccl
