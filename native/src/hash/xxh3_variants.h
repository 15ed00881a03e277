// For CPUs that have more than x86-64's first instructions. `hash`: 16 bytes.
#pragma once

#include <stddef.h>

namespace pccl {

void xxh3_128_avx2(const void* data, size_t bytes, unsigned char* hash);
void xxh3_128_avx512(const void* data, size_t bytes, unsigned char* hash);

}  // namespace pccl
