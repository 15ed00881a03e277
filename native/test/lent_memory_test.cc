// Goal: memory of another process is read as it is while it is lent, and never taken for lent afterwards.
#include "transport/lent_memory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <numeric>
#include <vector>

namespace pccl {
namespace {

std::vector<std::uint8_t> bytes_of(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{1});
  return bytes;
}

TEST(LentMemory, IsReadUntilTheLoanEnds) {
  const auto memory = bytes_of(100'000);
  MemoryLoan loan;
  const LentMemory lent = loan.describe(memory.data(), nullptr);
  std::vector<std::uint8_t> copy(memory.size());
  ASSERT_TRUE(read_lent(::getpid(), lent, lent.send, copy.data(), copy.size()));
  EXPECT_EQ(copy, memory);
  ASSERT_TRUE(read_lent(::getpid(), lent, lent.send + 7, copy.data(), 1));
  EXPECT_EQ(copy[0], memory[7]);
  loan.end();
  EXPECT_FALSE(read_lent(::getpid(), lent, lent.send, copy.data(), copy.size()));
}

TEST(LentMemory, LoansAreToldApart) {
  const MemoryLoan one;
  const MemoryLoan other;
  LentMemory mixed = one.describe(this, nullptr);
  mixed.word = other.describe(this, nullptr).word;
  std::uint8_t byte = 0;
  EXPECT_FALSE(read_lent(::getpid(), mixed, mixed.send, &byte, 1));
}

TEST(LentMemory, ThatIsNotThereIsNotRead) {
  MemoryLoan loan;
  const LentMemory lent = loan.describe(nullptr, nullptr);
  std::array<std::uint8_t, 16> copy{};
  EXPECT_FALSE(read_lent(::getpid(), lent, lent.send, copy.data(), copy.size()));
}

TEST(LentMemory, OfAnotherProcessEndsWithIt) {
  std::array<int, 2> tell{};
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(tell.data()), 0);
  ASSERT_EQ(::pipe(go.data()), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto memory = bytes_of(4096);
    MemoryLoan loan;
    const LentMemory lent = loan.describe(memory.data(), nullptr);
    char word = 0;
    const bool told = ::write(tell[1], &lent, sizeof lent) == sizeof lent;
    if (!told || ::read(go[0], &word, 1) != 1) ::_exit(1);
    loan.end();
    if (::write(tell[1], &word, 1) != 1 || ::read(go[0], &word, 1) != 1) ::_exit(1);
    ::_exit(0);
  }
  LentMemory lent;
  ASSERT_EQ(::read(tell[0], &lent, sizeof lent), static_cast<ssize_t>(sizeof lent));
  std::vector<std::uint8_t> copy(4096);
  char word = 0;
  if (!read_lent(child, lent, lent.send, copy.data(), copy.size())) {
    const int why = errno;
    ASSERT_EQ(::write(go[1], &word, 1), 1);
    ASSERT_EQ(::write(go[1], &word, 1), 1);
    ::waitpid(child, nullptr, 0);
    if (why == EPERM || why == ENOSYS) GTEST_SKIP() << "this system lets no process read another one's memory";
    FAIL() << "errno " << why;
  }
  EXPECT_EQ(copy, bytes_of(4096));
  ASSERT_EQ(::write(go[1], &word, 1), 1);
  ASSERT_EQ(::read(tell[0], &word, 1), 1);
  EXPECT_FALSE(read_lent(child, lent, lent.send, copy.data(), copy.size()));
  ASSERT_EQ(::write(go[1], &word, 1), 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(read_lent(child, lent, lent.send, copy.data(), copy.size()));
  for (const int fd : {tell[0], tell[1], go[0], go[1]}) ::close(fd);
}

}  // namespace
}  // namespace pccl
