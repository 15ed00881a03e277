// One copy of xxHash per source that includes this, made for the instructions that this source is compiled for.
// Nothing of C++'s library belongs here: the linker would keep one of its inline functions' copies for the whole
// program, and might take that of a CPU which isn't there.
#include <stddef.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace pccl {

inline static void xxh3_128_canonical(const void* data, size_t bytes, unsigned char* hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, bytes));
  memcpy(hash, canonical.digest, sizeof canonical.digest);
}

}  // namespace pccl
