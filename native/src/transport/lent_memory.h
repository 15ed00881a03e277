// Memory that an op lets the peers on this host read while it runs: process_vm_readv copies it from one process to
// the other without either's help.
//
// A reader must know that what it has read was still lent: the owner may have ended the op, by an abort that the
// reader hasn't heard of yet, and have given the memory back to its caller; or it is dead, and its process id another
// process's. So each op lends, besides its memory, a word that holds a random token until the op ends. A read copies
// the memory first and the word after it, in one call, and counts only if the token is there.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace pccl {

// As peers are told of it. Addresses are the owner's.
struct LentMemory {
  std::uint64_t send = 0;
  std::uint64_t recv = 0;
  std::uint64_t word = 0;
  std::uint64_t token = 0;
};

class MemoryLoan {
 public:
  MemoryLoan();
  MemoryLoan(const MemoryLoan&) = delete;
  ~MemoryLoan() { end(); }

  LentMemory describe(const void* send, const void* recv) const;
  // Whoever reads from now on finds out.
  void end() { word_->store(0, std::memory_order_seq_cst); }

 private:
  std::unique_ptr<std::atomic<std::uint64_t>> word_;
};

// Copies `bytes` from `address` in the memory of `process`. False: it isn't lent any more, or can't be read.
bool read_lent(pid_t process, const LentMemory& memory, std::uint64_t address, void* to, std::size_t bytes);

}  // namespace pccl
