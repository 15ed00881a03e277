// The arithmetic of outer steps, in every version that this CPU can run, against one that takes an element at a time:
// bits are compared. And that what error feedback sends and keeps adds up.
#include "diloco/elementwise.h"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "diloco/feedback.h"

namespace pccl::diloco {
namespace {

// Whole vectors, what is left behind them, and several blocks of a sum.
constexpr std::size_t count = 5003;

using Arrays = std::vector<std::vector<float>>;

Arrays random_arrays(std::size_t arrays, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  Arrays all(arrays, std::vector<float>(count));
  for (auto& array : all) {
    for (float& value : array) value = normal(engine) * std::exp(4 * normal(engine));
  }
  return all;
}

// Each operation rounded on its own: volatile keeps a compiler from fusing them.
float mul(float a, float b) {
  volatile float product = a * b;
  return product;
}
float add(float a, float b) {
  volatile float sum = a + b;
  return sum;
}

void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want, const char* what) {
  EXPECT_EQ(std::memcmp(got.data(), want.data(), count * sizeof(float)), 0) << what;
}

template <class Body>
void for_each_target(const Body& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

double run_on(Kernel kernel, Arrays& arrays, std::initializer_list<std::size_t> which, std::vector<float> factors) {
  Operands operands;
  operands.count = count;
  std::size_t at = 0;
  for (const std::size_t index : which) operands.arrays[at++] = arrays[index].data();
  for (std::size_t i = 0; i < factors.size(); ++i) operands.factors[i] = factors[i];
  return run(kernel, operands);
}

TEST(Elementwise, DifferenceAndItsSquaresAreTheSameOnEveryTarget) {
  std::vector<double> sums;
  for_each_target([&] {
    Arrays arrays = random_arrays(3, 1);
    Arrays want = arrays;
    double partial[8] = {};
    for (std::size_t i = 0; i < count; ++i) {
      want[2][i] = add(want[0][i], -want[1][i]);
      partial[i % 8] += static_cast<double>(want[2][i]) * want[2][i];
    }
    double sum = 0;
    for (const double part : partial) sum += part;
    sums.push_back(run_on(Kernel::difference, arrays, {0, 1, 2}, {}));
    expect_same_bits(arrays[2], want[2], "difference");
    EXPECT_EQ(sums.back(), sum);
  });
  ASSERT_FALSE(sums.empty());
}

TEST(Elementwise, OptimizersRoundEachOperation) {
  for_each_target([] {
    Arrays arrays = random_arrays(4, 2);
    for (float& v : arrays[3]) v = std::fabs(v);
    const Arrays before = arrays;
    Arrays want = before;
    run_on(Kernel::nesterov, arrays, {0, 1, 2, 1, 2}, {0.25f, 0.7f, 0.9f});
    for (std::size_t i = 0; i < count; ++i) {
      const float g = mul(0.25f, before[0][i]);
      const float m = add(mul(0.9f, before[2][i]), g);
      want[2][i] = m;
      want[1][i] = add(before[1][i], -mul(0.7f, add(g, mul(0.9f, m))));
    }
    expect_same_bits(arrays[1], want[1], "nesterov");
    expect_same_bits(arrays[2], want[2], "momentum");

    arrays = before;
    want = before;
    run_on(Kernel::adam, arrays, {0, 1, 2, 3, 1, 2, 3}, {0.5f, 0.3f, 0.9f, 0.1f, 0.95f, 0.05f, 0.1f, 0.19f, 0.0975f});
    for (std::size_t i = 0; i < count; ++i) {
      const float g = mul(0.5f, before[0][i]);
      const float m = add(mul(0.9f, before[2][i]), mul(0.1f, g));
      const float v = add(mul(0.95f, before[3][i]), mul(0.05f, mul(g, g)));
      volatile float mean = m / 0.19f;
      volatile float variance = v / 0.0975f;
      volatile float root = std::sqrt(static_cast<float>(variance));
      volatile float ratio = mean / add(root, 0.1f);
      want[1][i] = add(before[1][i], -mul(0.3f, ratio));
      want[2][i] = m;
      want[3][i] = v;
    }
    for (const std::size_t array : {1, 2, 3}) expect_same_bits(arrays[array], want[array], "adam");

    arrays = before;
    run_on(Kernel::sgd, arrays, {0, 1, 1}, {0.5f, 0.3f});
    want = before;
    for (std::size_t i = 0; i < count; ++i) want[1][i] = add(before[1][i], -mul(0.3f, mul(0.5f, before[0][i])));
    expect_same_bits(arrays[1], want[1], "sgd");
  });
}

TEST(Elementwise, MixingRoundsEachOperation) {
  for_each_target([] {
    const Arrays before = random_arrays(3, 3);
    Arrays arrays = before;
    Arrays want = before;
    run_on(Kernel::mix, arrays, {0, 1}, {0.3f, 0.7f});
    run_on(Kernel::add_scaled, arrays, {0, 2}, {-0.7f});
    for (std::size_t i = 0; i < count; ++i) {
      want[1][i] = add(mul(0.3f, before[1][i]), mul(0.7f, before[0][i]));
      want[2][i] = add(before[2][i], mul(-0.7f, before[0][i]));
    }
    expect_same_bits(arrays[1], want[1], "mix");
    expect_same_bits(arrays[2], want[2], "add_scaled");
    arrays = before;
    run_on(Kernel::carry, arrays, {0, 1, 2}, {});
    run_on(Kernel::scale, arrays, {0}, {0.3f});
    for (std::size_t i = 0; i < count; ++i) {
      want[0][i] = mul(0.3f, before[0][i]);
      want[2][i] = add(before[0][i], add(before[2][i], -before[1][i]));
    }
    expect_same_bits(arrays[0], want[0], "scale");
    expect_same_bits(arrays[1], before[0], "carry's start");
    expect_same_bits(arrays[2], want[2], "carry");
  });
}

TEST(Feedback, WhatIsSentAndWhatIsKeptAddUp) {
  for (const QuantizedFormat format : {QuantizedFormat::u8, QuantizedFormat::i4, QuantizedFormat::bf16}) {
    const Arrays before = random_arrays(2, 4);
    Arrays arrays = before;
    Quantization quantization;
    quantization.format = format;
    quantize_with_feedback(quantization, 0.5f, arrays[0], arrays[1]);
    for (std::size_t i = 0; i < count; ++i) {
      const float compensated = add(before[0][i], mul(0.5f, before[1][i]));
      EXPECT_EQ(arrays[1][i], add(compensated, -arrays[0][i]));
    }
    EXPECT_NE(arrays[0], before[0]);
  }
}

TEST(Feedback, SparseBytesAreTheGreatestElements) {
  constexpr std::size_t keep = 100;
  const Arrays before = random_arrays(3, 5);
  Arrays arrays = before;
  std::vector<std::uint8_t> bytes(sparse_bytes(count, keep));
  sparsify_with_feedback(keep, 0, arrays[0], arrays[1], bytes);
  std::vector<float> sum(count);
  ASSERT_TRUE(add_sparse(bytes, keep, 1, sum));
  expect_same_bits(sum, arrays[0], "what is read is what was sent");
  for (std::size_t start = 0; start < count; start += sparse_chunk) {
    const std::size_t end = std::min(start + sparse_chunk, count);
    float least_sent = INFINITY;
    float greatest_kept = 0;
    std::size_t sent = 0;
    for (std::size_t i = start; i < end; ++i) {
      EXPECT_EQ(arrays[1][i], add(before[0][i], -arrays[0][i]));
      const float magnitude = std::fabs(before[0][i]);
      // An element may be sent as 0; then it isn't seen here.
      if (arrays[0][i] != 0) {
        ++sent;
        least_sent = std::min(least_sent, magnitude);
      } else {
        greatest_kept = std::max(greatest_kept, magnitude);
      }
    }
    EXPECT_LE(sent, keep);
    EXPECT_GT(sent, 0u);
    if (sent == keep) EXPECT_GE(least_sent, greatest_kept);
  }
}

TEST(Feedback, SparseBytesThatNobodyWritesAreRefused) {
  constexpr std::size_t keep = 2;
  std::vector<float> sum(10);
  std::vector<std::uint8_t> bytes(sparse_bytes(sum.size(), keep));
  EXPECT_TRUE(add_sparse(bytes, keep, 1, sum));
  EXPECT_FALSE(add_sparse(std::span(bytes).first(bytes.size() - 1), keep, 1, sum));
  bytes[4] = 10;  // the first index: one beyond the end
  EXPECT_FALSE(add_sparse(bytes, keep, 1, sum));
  bytes[4] = 9;
  EXPECT_TRUE(add_sparse(bytes, keep, 1, sum));
  const float infinity = INFINITY;
  std::memcpy(bytes.data(), &infinity, sizeof infinity);
  EXPECT_FALSE(add_sparse(bytes, keep, 1, sum));
}

}  // namespace
}  // namespace pccl::diloco
