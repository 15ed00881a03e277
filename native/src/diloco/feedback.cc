#include "diloco/feedback.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "quantize/layout.h"
#include "quantize/quantize.h"

namespace pccl::diloco {

namespace {

// A multiple of every block, small enough for the caches.
constexpr std::size_t piece = 16384;
// Codes are -127 … 127.
constexpr float code_max = 127;

void compensate(float decay, std::span<float> values, std::span<const float> error) {
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = values[i] + decay * error[i];
}

// The elements of a chunk by falling magnitude, then by rising index, the first `keep` in order of their indices.
std::span<const std::uint16_t> greatest(std::span<const float> values, std::size_t keep,
                                        std::array<std::uint64_t, sparse_chunk>& keys,
                                        std::array<std::uint16_t, sparse_chunk>& indices) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu;
    keys[i] = std::uint64_t{0x7fffffffu - magnitude} << 32 | i;
  }
  const auto end = keys.begin() + static_cast<std::ptrdiff_t>(values.size());
  std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(keep) - 1, end);
  for (std::size_t i = 0; i < keep; ++i) indices[i] = static_cast<std::uint16_t>(keys[i] & 0xffff);
  std::sort(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(keep));
  return {indices.data(), keep};
}

}  // namespace

void quantize_with_feedback(const Quantization& quantization, float decay, std::span<float> values,
                            std::span<float> error) {
  std::vector<std::uint8_t> bytes(4 * piece + piece);
  for (std::size_t start = 0; start < values.size(); start += piece) {
    const std::size_t count = std::min(piece, values.size() - start);
    const std::span<float> part = values.subspan(start, count);
    const std::span<float> rest = error.subspan(start, count);
    compensate(decay, part, rest);
    std::copy(part.begin(), part.end(), rest.begin());
    quantize(quantization, 0, start, part, bytes.data());
    dequantize(quantization, {bytes.data(), static_cast<std::size_t>(quantized_bytes(quantization, count))}, part);
    for (std::size_t i = 0; i < count; ++i) rest[i] = rest[i] - part[i];
  }
}

std::size_t sparse_bytes(std::size_t count, std::size_t keep) {
  const std::size_t rest = count % sparse_chunk;
  const auto bytes = [](std::size_t kept) { return sizeof(float) + 3 * kept; };
  return count / sparse_chunk * bytes(keep) + (rest == 0 ? 0 : bytes(std::min(keep, rest)));
}

void sparsify_with_feedback(std::size_t keep, float decay, std::span<float> values, std::span<float> error,
                            std::span<std::uint8_t> into) {
  std::array<std::uint64_t, sparse_chunk> keys;
  std::array<std::uint16_t, sparse_chunk> order;
  std::uint8_t* at = into.data();
  for (std::size_t start = 0; start < values.size(); start += sparse_chunk) {
    const std::size_t count = std::min(sparse_chunk, values.size() - start);
    const std::span<float> part = values.subspan(start, count);
    const std::span<float> rest = error.subspan(start, count);
    compensate(decay, part, rest);
    std::copy(part.begin(), part.end(), rest.begin());
    const std::span<const std::uint16_t> chosen = greatest(rest, std::min(keep, count), keys, order);
    float largest = 0;
    for (const std::uint16_t index : chosen) largest = std::max(largest, std::fabs(rest[index]));
    const float scale = largest / code_max;
    std::memcpy(at, &scale, sizeof scale);
    at += sizeof scale;
    std::memcpy(at, chosen.data(), chosen.size_bytes());
    at += chosen.size_bytes();
    std::fill(part.begin(), part.end(), 0.0f);
    for (const std::uint16_t index : chosen) {
      // A scale so small that it has become 0 has nothing to say.
      const float place = scale > 0 ? std::nearbyint(rest[index] / scale) : 0;
      const auto code = static_cast<std::int8_t>(std::clamp(place, -code_max, code_max));
      *at++ = static_cast<std::uint8_t>(code);
      part[index] = static_cast<float>(code) * scale;
      rest[index] = rest[index] - part[index];
    }
  }
}

bool add_sparse(std::span<const std::uint8_t> bytes, std::size_t keep, float factor, std::span<float> sum) {
  if (bytes.size() != sparse_bytes(sum.size(), keep)) return false;
  const std::uint8_t* at = bytes.data();
  for (std::size_t start = 0; start < sum.size(); start += sparse_chunk) {
    const std::size_t count = std::min(sparse_chunk, sum.size() - start);
    const std::size_t kept = std::min(keep, count);
    float scale = 0;
    std::memcpy(&scale, at, sizeof scale);
    if (!std::isfinite(scale)) return false;
    const std::uint8_t* const indices = at + sizeof scale;
    const std::uint8_t* const codes = indices + 2 * kept;
    for (std::size_t i = 0; i < kept; ++i) {
      std::uint16_t index = 0;
      std::memcpy(&index, indices + 2 * i, sizeof index);
      if (index >= count) return false;
      const float value = static_cast<float>(static_cast<std::int8_t>(codes[i])) * scale;
      sum[start + index] = sum[start + index] + factor * value;
    }
    at = codes + kept;
  }
  return true;
}

}  // namespace pccl::diloco
