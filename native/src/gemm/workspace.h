// Memory that products pack their operands into. It grows to what was needed at most, and is used by one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "gemm/operand.h"

namespace pccl::gemm {

// At a multiple of 64 bytes; what it held is lost when it grows.
template <typename T>
class AlignedArray {
 public:
  // At least `count` elements, without a value. Throws std::bad_alloc.
  T* reserve(std::size_t count) {
    if (count > count_) {
      memory_.reset();
      count_ = 0;
      memory_.reset(static_cast<T*>(::operator new(count * sizeof(T), alignment)));
      count_ = count;
    }
    return memory_.get();
  }
  std::size_t bytes() const { return count_ * sizeof(T); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(T* memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<T, Free> memory_;
  std::size_t count_ = 0;
};

struct Workspace {
  AlignedArray<Cell> left;
  AlignedArray<Cell> right;

  std::size_t bytes() const { return left.bytes() + right.bytes(); }
};

}  // namespace pccl::gemm
