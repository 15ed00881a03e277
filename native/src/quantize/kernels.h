// The parts of quantize.h, each with the fastest version that this CPU can run, chosen when it is first called. All
// versions give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pccl/quantization.h"

namespace pccl {

struct EncodeJob {
  const Quantization& quantization;
  std::uint64_t stream = 0;
  std::uint64_t first_element = 0;
  const float* from = nullptr;
  std::size_t count = 0;
  std::uint8_t* into = nullptr;
};

struct DecodeJob {
  const Quantization& quantization;
  const std::uint8_t* from = nullptr;
  std::size_t count = 0;
  float* into = nullptr;
};

void encode_affine(const EncodeJob& job);
void encode_minifloats(const EncodeJob& job);
// False: a header that encode never writes. What was decoded by then is in place.
bool decode_affine(const DecodeJob& job);
bool decode_minifloats(const DecodeJob& job);
// The bits of the greatest magnitude; of a NaN they are the greatest of all.
std::uint32_t greatest_magnitude(const float* from, std::size_t count);

}  // namespace pccl
