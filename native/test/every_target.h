// Runs vector kernels in every version that this CPU can run.
#pragma once

#include <gtest/gtest.h>
#include <hwy/highway.h>

namespace pccl::test {

template <typename F>
void on_every_target(F body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
    if (testing::Test::HasFailure()) break;
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace pccl::test
