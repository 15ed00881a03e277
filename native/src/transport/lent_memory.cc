#include "transport/lent_memory.h"

#include <sys/random.h>
#include <sys/uio.h>

#include <array>

#include "base/check.h"

namespace pccl {
namespace {

std::uint64_t random_token() {
  std::uint64_t token = 0;
  while (token == 0) PCCL_CHECK(::getrandom(&token, sizeof token, 0) == sizeof token);
  return token;
}

// The address of another process's memory, as the system call wants it.
void* foreign(std::uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace

MemoryLoan::MemoryLoan() : word_(std::make_unique<std::atomic<std::uint64_t>>(random_token())) {}

LentMemory MemoryLoan::describe(const void* send, const void* recv) const {
  return {reinterpret_cast<std::uint64_t>(send), reinterpret_cast<std::uint64_t>(recv),
          reinterpret_cast<std::uint64_t>(word_.get()), word_->load(std::memory_order_relaxed)};
}

bool read_lent(pid_t process, const LentMemory& memory, std::uint64_t address, void* to, std::size_t bytes) {
  std::uint64_t token = 0;
  const std::array<iovec, 2> local{{{to, bytes}, {&token, sizeof token}}};
  const std::array<iovec, 2> remote{{{foreign(address), bytes}, {foreign(memory.word), sizeof token}}};
  const ssize_t got = ::process_vm_readv(process, local.data(), local.size(), remote.data(), remote.size(), 0);
  return got == static_cast<ssize_t>(bytes + sizeof token) && token == memory.token;
}

}  // namespace pccl
