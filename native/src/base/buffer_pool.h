// Keeps the memory that in-place ops back their input up to, so that the next op of the size finds it mapped.
// Bound: what is kept and lent together never exceeds the most that ops have needed at once. All of it goes with
// the pool. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

namespace pccl {

class BufferPool {
 public:
  struct Free {
    void operator()(std::uint8_t* memory) const;
  };
  struct Buffer {
    std::unique_ptr<std::uint8_t[], Free> memory;  // null: the system has none left
    std::size_t bytes = 0;
  };

  Buffer take(std::size_t bytes);
  void give_back(Buffer buffer);

 private:
  std::multimap<std::size_t, Buffer> idle_;
  std::size_t idle_bytes_ = 0;
  std::size_t lent_bytes_ = 0;
  std::size_t lent_bytes_max_ = 0;
};

}  // namespace pccl
