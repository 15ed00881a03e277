#include "hash/xxh3.h"

#include "hash/xxh3-inl.h"
#include "hash/xxh3_variants.h"

namespace pccl {
namespace {

using Variant = void (*)(const void* data, size_t bytes, unsigned char* hash);

Variant best_variant() {
#ifdef PCCL_XXH3_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return xxh3_128_avx512;
  if (__builtin_cpu_supports("avx2")) return xxh3_128_avx2;
#endif
  return xxh3_128_canonical;
}

}  // namespace

Hash128 xxh3_128(const void* data, std::size_t bytes) {
  static const Variant variant = best_variant();
  Hash128 hash;
  variant(data, bytes, hash.data());
  return hash;
}

std::string to_hex(const Hash128& hash) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : hash) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

}  // namespace pccl
