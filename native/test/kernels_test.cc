// Each kernel against a loop that says what it should do, for lengths around the vector sizes.
#include "reduce/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace pccl {
namespace {

template <typename T>
struct Kind;
template <>
struct Kind<float> {
  static constexpr DType dtype = DType::f32;
};
template <>
struct Kind<double> {
  static constexpr DType dtype = DType::f64;
};
template <>
struct Kind<std::int32_t> {
  static constexpr DType dtype = DType::i32;
};

template <typename T>
class Kernels : public testing::Test {};
using Elements = testing::Types<float, double, std::int32_t>;
TYPED_TEST_SUITE(Kernels, Elements);

template <typename T>
T reference(ReduceOp op, T a, T b, bool last, std::uint32_t contributions) {
  switch (op) {
    case ReduceOp::sum:
      return a + b;
    case ReduceOp::avg:
      return last ? (a + b) / static_cast<T>(contributions) : a + b;
    case ReduceOp::max:
      return std::max(a, b);
    case ReduceOp::min:
      return std::min(a, b);
  }
  return 0;
}

TYPED_TEST(Kernels, EveryReductionAtEveryLength) {
  using T = TypeParam;
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::max, ReduceOp::min}) {
    for (std::size_t count = 0; count < 70; ++count) {
      std::vector<T> local(count), incoming(count), out(count + 1, T(77)), in_place;
      for (std::size_t i = 0; i < count; ++i) {
        local[i] = static_cast<T>(static_cast<int>(i * 37 % 101) - 50);
        incoming[i] = static_cast<T>(static_cast<int>(i * 53 % 97) - 48);
      }
      in_place = local;
      combine_last(Kind<T>::dtype, op, out.data(), local.data(), incoming.data(), count, 3);
      combine(Kind<T>::dtype, op, in_place.data(), in_place.data(), incoming.data(), count);
      for (std::size_t i = 0; i < count; ++i) {
        ASSERT_EQ(out[i], reference<T>(op, local[i], incoming[i], true, 3));
        ASSERT_EQ(in_place[i], reference<T>(op, local[i], incoming[i], false, 3));
      }
      ASSERT_EQ(out[count], T(77));
    }
  }
}

template <typename T>
void nan_reaches_every_result() {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::max, ReduceOp::min}) {
    const std::vector<T> local = {nan, 1, nan, 4, nan, 1, nan, 4, 5};
    const std::vector<T> incoming = {2, nan, nan, 3, 2, nan, nan, 3, 6};
    std::vector<T> out(local.size());
    combine(Kind<T>::dtype, op, out.data(), local.data(), incoming.data(), out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(std::isnan(out[i]), std::isnan(local[i]) || std::isnan(incoming[i])) << reduce_op_name(op) << " " << i;
    }
  }
}

TEST(KernelsNan, ReachesEveryResult) {
  nan_reaches_every_result<float>();
  nan_reaches_every_result<double>();
}

TEST(KernelsInteger, SumsWrapAndAveragesRoundTowardsZero) {
  const std::vector<std::int32_t> local = {INT32_MAX, -7, 7};
  const std::vector<std::int32_t> incoming = {1, 0, 0};
  std::vector<std::int32_t> out(3);
  combine(DType::i32, ReduceOp::sum, out.data(), local.data(), incoming.data(), 1);
  EXPECT_EQ(out[0], INT32_MIN);
  combine_last(DType::i32, ReduceOp::avg, out.data(), local.data(), incoming.data(), 3, 2);
  EXPECT_EQ(out[1], -3);
  EXPECT_EQ(out[2], 3);
}

}  // namespace
}  // namespace pccl
