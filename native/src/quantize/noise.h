// The random numbers of stochastic rounding. Each follows from the seed, the stream and the element's place in the
// array alone, so that neither chunks nor threads, nor the width of vectors, matter.
#pragma once

#include <cstdint>

namespace pccl {

// SplitMix64's finalizer (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
constexpr std::uint64_t mix64(std::uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
  return bits ^ (bits >> 31);
}

// Of one block. Within it a counter goes through MurmurHash3's 32-bit finalizer, with a second key half-way.
struct Noise {
  static constexpr std::uint32_t stride = 0x9e3779b9;
  static constexpr std::uint32_t first_factor = 0x85ebca6b;
  static constexpr std::uint32_t second_factor = 0xc2b2ae35;

  Noise(std::uint64_t seed, std::uint64_t stream, std::uint64_t first_element) {
    const std::uint64_t key = mix64(mix64(mix64(seed + stride) ^ stream) + first_element);
    start = static_cast<std::uint32_t>(key);
    tweak = static_cast<std::uint32_t>(key >> 32);
  }

  std::uint32_t bits(std::uint32_t index) const {
    std::uint32_t bits = start + index * stride;
    bits = ((bits ^ (bits >> 16)) * first_factor) ^ tweak;
    bits = (bits ^ (bits >> 13)) * second_factor;
    return bits ^ (bits >> 16);
  }
  // From 0 to less than 1.
  static float fraction(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

  std::uint32_t start = 0;
  std::uint32_t tweak = 0;
};

}  // namespace pccl
