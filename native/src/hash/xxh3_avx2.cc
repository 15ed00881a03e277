#include "hash/xxh3-inl.h"
#include "hash/xxh3_variants.h"

namespace pccl {

void xxh3_128_avx2(const void* data, size_t bytes, unsigned char* hash) { xxh3_128_canonical(data, bytes, hash); }

}  // namespace pccl
