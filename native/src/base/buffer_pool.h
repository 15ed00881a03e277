// Keeps the memory that in-place ops back their input up to, so that the next op of the size finds it mapped.
// Bound: what is kept and lent together never exceeds the most that was lent at once, where a lent buffer is at most
// a quarter, and two huge pages, bigger than asked for. All of it goes with the pool. One thread.
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
  // Lent and kept.
  std::size_t held_bytes() const { return lent_bytes_ + idle_bytes_; }

 private:
  std::multimap<std::size_t, Buffer> idle_;
  std::size_t idle_bytes_ = 0;
  std::size_t lent_bytes_ = 0;
  std::size_t lent_bytes_max_ = 0;
};

}  // namespace pccl
