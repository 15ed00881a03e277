// The pool lends the same memory again, and keeps no more than was in use at once.
#include "base/buffer_pool.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace pccl {
namespace {

TEST(BufferPool, LendsTheSameMemoryAgain) {
  BufferPool pool;
  auto buffer = pool.take(10 << 20);
  const auto* const memory = buffer.memory.get();
  ASSERT_NE(memory, nullptr);
  EXPECT_GE(buffer.bytes, std::size_t{10} << 20);
  pool.give_back(std::move(buffer));
  buffer = pool.take((10 << 20) - 100);
  EXPECT_EQ(buffer.memory.get(), memory);
  pool.give_back(std::move(buffer));
}

TEST(BufferPool, KeepsNoMoreThanWasNeededAtOnce) {
  BufferPool pool;
  for (std::size_t bytes = 1 << 20; bytes <= 64 << 20; bytes *= 4) {
    pool.give_back(pool.take(bytes));
    EXPECT_LE(pool.held_bytes(), std::max<std::size_t>(bytes, 2 << 20));
  }
  // Too big for these, the kept one makes room.
  auto first = pool.take(32 << 20);
  auto second = pool.take(32 << 20);
  EXPECT_EQ(pool.held_bytes(), std::size_t{64} << 20);
  pool.give_back(std::move(first));
  pool.give_back(std::move(second));
  EXPECT_EQ(pool.held_bytes(), std::size_t{64} << 20);
}

TEST(BufferPool, SaysWhenThereIsNoMemory) {
  BufferPool pool;
  EXPECT_EQ(pool.take(SIZE_MAX / 4).memory, nullptr);
  EXPECT_EQ(pool.held_bytes(), 0u);
}

}  // namespace
}  // namespace pccl
