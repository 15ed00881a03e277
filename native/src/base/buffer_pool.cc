#include "base/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/check.h"

namespace pccl {
namespace {

constexpr std::size_t page_bytes = std::size_t{2} << 20;

}  // namespace

void BufferPool::Free::operator()(std::uint8_t* memory) const { std::free(memory); }

BufferPool::Buffer BufferPool::take(std::size_t bytes) {
  PCCL_CHECK(bytes > 0);
  Buffer buffer;
  const auto fit = idle_.lower_bound(bytes);
  if (fit != idle_.end() && fit->first <= bytes + bytes / 4 + page_bytes) {
    buffer = std::move(fit->second);
    idle_bytes_ -= buffer.bytes;
    idle_.erase(fit);
  } else {
    // Big buffers are made of huge pages where the system has them: a first use then costs few page faults.
    const std::size_t alignment = bytes >= page_bytes ? page_bytes : 64;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    buffer.memory.reset(static_cast<std::uint8_t*>(std::aligned_alloc(alignment, rounded)));
    if (!buffer.memory) return buffer;
    buffer.bytes = rounded;
    if (alignment == page_bytes) ::madvise(buffer.memory.get(), rounded, MADV_HUGEPAGE);
  }
  lent_bytes_ += buffer.bytes;
  lent_bytes_max_ = std::max(lent_bytes_max_, lent_bytes_);
  while (idle_bytes_ + lent_bytes_ > lent_bytes_max_) {
    const auto smallest = idle_.begin();
    idle_bytes_ -= smallest->first;
    idle_.erase(smallest);
  }
  return buffer;
}

void BufferPool::give_back(Buffer buffer) {
  if (!buffer.memory) return;
  PCCL_CHECK(lent_bytes_ >= buffer.bytes);
  lent_bytes_ -= buffer.bytes;
  idle_bytes_ += buffer.bytes;
  idle_.emplace(buffer.bytes, std::move(buffer));
}

}  // namespace pccl
