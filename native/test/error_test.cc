#include <gtest/gtest.h>

#include <set>
#include <string>

#include "pccl/engine.h"

namespace pccl {
namespace {

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::out_of_memory); ++code) {
    names.insert(error_code_name(static_cast<ErrorCode>(code)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(ErrorCode::out_of_memory) + 1);
}

}  // namespace
}  // namespace pccl
