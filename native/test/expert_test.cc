// An expert forward and backward: results against its formulas in double precision, gradients against finite
// differences of those, and the bits of every row against the same row alone.
#include "moe/ffn/expert_pass.h"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gemm/packing.h"

namespace pccl::moe {
namespace {

// Numbers as doubles, of values that their dtype can hold.
using Numbers = std::vector<double>;

float cut(DType dtype, float value) {
  return dtype == DType::f32 ? value : std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xffff0000u);
}

Numbers random_numbers(DType dtype, std::size_t count, double scale, std::mt19937& random) {
  std::normal_distribution<double> normal(0, scale);
  Numbers numbers(count);
  for (double& number : numbers) number = cut(dtype, static_cast<float>(normal(random)));
  return numbers;
}

std::vector<std::byte> stored(DType dtype, const Numbers& numbers) {
  std::vector<std::byte> bytes(numbers.size() * element_bytes(dtype));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto value = std::bit_cast<std::uint32_t>(static_cast<float>(numbers[i]));
    if (dtype == DType::f32) {
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    } else {
      const auto half = static_cast<std::uint16_t>(value >> 16);
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

double number_at(DType dtype, const std::byte* bytes, std::size_t i) {
  std::uint32_t value = 0;
  if (dtype == DType::f32) {
    std::memcpy(&value, bytes + 4 * i, 4);
  } else {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes + 2 * i, 2);
    value = std::uint32_t{half} << 16;
  }
  return std::bit_cast<float>(value);
}

double activated(Activation activation, double gate, double up) {
  if (activation == Activation::swiglu) return up * gate / (1 + std::exp(-gate));
  gate = std::min(gate, 7.0);
  up = std::clamp(up, -7.0, 7.0);
  return (up + 1) * gate / (1 + std::exp(-1.702 * gate));
}

// The expert's formula for one token.
Numbers formula(const ExpertShape& shape, const std::vector<Numbers>& tensors, const double* x) {
  const auto [activation, dtype, hidden, inner] = shape;
  Numbers a(inner);
  for (std::size_t j = 0; j < inner; ++j) {
    double gate = 0;
    double up = 0;
    if (activation == Activation::swiglu) {
      for (std::size_t i = 0; i < hidden; ++i) {
        gate += x[i] * tensors[0][j * hidden + i];
        up += x[i] * tensors[1][j * hidden + i];
      }
    } else {
      gate = tensors[1][2 * j];
      up = tensors[1][2 * j + 1];
      for (std::size_t i = 0; i < hidden; ++i) {
        gate += x[i] * tensors[0][i * 2 * inner + 2 * j];
        up += x[i] * tensors[0][i * 2 * inner + 2 * j + 1];
      }
    }
    a[j] = activated(activation, gate, up);
  }
  Numbers y(hidden);
  for (std::size_t i = 0; i < hidden; ++i) {
    if (activation == Activation::swiglu) {
      for (std::size_t j = 0; j < inner; ++j) y[i] += a[j] * tensors[2][i * inner + j];
    } else {
      y[i] = tensors[3][i];
      for (std::size_t j = 0; j < inner; ++j) y[i] += a[j] * tensors[2][j * hidden + i];
    }
  }
  return y;
}

const std::atomic<bool> never{false};

// An expert with random weights, and tokens with the gradients of what becomes of them.
struct Case {
  ExpertShape shape;
  std::size_t tokens;
  std::vector<Numbers> tensors;
  Numbers x;
  Numbers dy;
  gemm::AlignedArray<std::byte> packed;
  std::vector<std::byte> x_bytes;
  std::vector<std::byte> dy_bytes;

  Case(const ExpertShape& of, std::size_t count, std::uint32_t seed) : shape(of), tokens(count) {
    std::mt19937 random(seed);
    for (const ExpertTensor& tensor : expert_tensors(shape)) {
      const bool is_bias = tensor.elements <= 2 * std::max(shape.hidden, shape.inner);
      // Gates and ups of gpt-oss are large enough to be clamped now and then.
      const double scale = is_bias ? 2.5 : 2.5 / std::sqrt(static_cast<double>(shape.hidden));
      tensors.push_back(random_numbers(shape.dtype, tensor.elements, scale, random));
    }
    x = random_numbers(shape.dtype, tokens * shape.hidden, 1, random);
    dy = random_numbers(shape.dtype, tokens * shape.hidden, 1, random);
    x_bytes = stored(shape.dtype, x);
    dy_bytes = stored(shape.dtype, dy);
    std::vector<std::vector<std::byte>> bytes;
    std::vector<const void*> pointers;
    for (const Numbers& tensor : tensors) bytes.push_back(stored(shape.dtype, tensor));
    for (const std::vector<std::byte>& tensor : bytes) pointers.push_back(tensor.data());
    pack_expert(shape, pointers, true, packed.reserve(ExpertLayout(shape).training_bytes));
  }

  std::size_t row_bytes() const { return shape.hidden * element_bytes(shape.dtype); }
  std::size_t preactivation_row_bytes() const { return 2 * shape.inner * element_bytes(shape.dtype); }
};

struct Outcome {
  std::vector<std::byte> y;
  std::vector<std::byte> preactivations;
  std::vector<std::byte> dx;
  std::vector<std::vector<float>> gradients;
};

// Some of the tokens, forward and backward.
Outcome run(Case& c, std::size_t first, std::size_t count, std::uint64_t position, Outcome run = {}) {
  ExpertWorkspace workspace;
  run.y.assign(count * c.row_bytes(), std::byte{});
  run.preactivations.assign(count * c.preactivation_row_bytes(), std::byte{});
  run.dx.assign(count * c.row_bytes(), std::byte{});
  const std::byte* const x = c.x_bytes.data() + first * c.row_bytes();
  run_forward({c.shape, c.packed.reserve(0), count, x, run.y.data(), run.preactivations.data()}, workspace, never);
  BackwardPass pass{c.shape, c.packed.reserve(0), count,         position, x, run.preactivations.data(),
                    c.dy_bytes.data() + first * c.row_bytes(), run.dx.data(), {}};
  if (run.gradients.empty()) {
    for (const ExpertTensor& tensor : expert_tensors(c.shape)) run.gradients.emplace_back(tensor.elements);
  }
  for (std::vector<float>& gradient : run.gradients) pass.gradients.push_back(gradient.data());
  run_backward(pass, workspace, never);
  return run;
}

constexpr ExpertShape shapes[] = {
    {Activation::swiglu, DType::f32, 33, 7},    {Activation::swiglu, DType::f32, 64, 96},
    {Activation::gpt_oss, DType::f32, 33, 7},   {Activation::gpt_oss, DType::f32, 48, 80},
    {Activation::swiglu, DType::bf16, 33, 7},   {Activation::swiglu, DType::bf16, 64, 96},
    {Activation::gpt_oss, DType::bf16, 33, 7},  {Activation::gpt_oss, DType::bf16, 48, 80},
};

std::string name_of(const ExpertShape& shape) {
  return (shape.activation == Activation::swiglu ? "swiglu_" : "gpt_oss_") + std::string(dtype_name(shape.dtype)) +
         "_" + std::to_string(shape.hidden) + "x" + std::to_string(shape.inner);
}

class Experts : public testing::TestWithParam<ExpertShape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Experts, testing::ValuesIn(shapes),
                         [](const auto& test) { return name_of(test.param); });

double largest(const Numbers& numbers) {
  double most = 0;
  for (const double number : numbers) most = std::max(most, std::abs(number));
  return most;
}

// What may be off, relative to the largest number: roundings of f32, or of bf16 at each step.
double tolerance(DType dtype) { return dtype == DType::f32 ? 3e-6 : 3e-2; }

// With every version of the kernels: products and activations are compiled for each.
TEST_P(Experts, ComputeTheirFormula) {
  Case c(GetParam(), 50, 1);
  Numbers expected;
  for (std::size_t token = 0; token < c.tokens; ++token) {
    const Numbers y = formula(c.shape, c.tensors, c.x.data() + token * c.shape.hidden);
    expected.insert(expected.end(), y.begin(), y.end());
  }
  const double allowed = tolerance(c.shape.dtype) * largest(expected);
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    const Outcome result = run(c, 0, c.tokens, 0);
    hwy::SetSupportedTargetsForTest(0);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(number_at(c.shape.dtype, result.y.data(), i), expected[i], allowed) << hwy::TargetName(target);
    }
  }
}

TEST_P(Experts, HaveTheGradientsThatFiniteDifferencesHave) {
  Case c(GetParam(), 20, 2);
  const Outcome result = run(c, 0, c.tokens, 0);
  const auto loss = [&] {
    double sum = 0;
    for (std::size_t token = 0; token < c.tokens; ++token) {
      const Numbers y = formula(c.shape, c.tensors, c.x.data() + token * c.shape.hidden);
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * c.dy[token * c.shape.hidden + i];
    }
    return sum;
  };
  const auto slope = [&](double& number) {
    const double kept = number;
    const double step = 1e-6;
    number = kept + step;
    const double after = loss();
    number = kept - step;
    const double before = loss();
    number = kept;
    return (after - before) / (2 * step);
  };
  std::mt19937 random(3);
  const double allowed = c.shape.dtype == DType::f32 ? 1e-5 : 5e-2;
  const auto check = [&](const char* what, Numbers& numbers, const auto& gradient_at) {
    Numbers expected;
    Numbers actual;
    for (int sample = 0; sample < 60; ++sample) {
      const std::size_t i = random() % numbers.size();
      expected.push_back(slope(numbers[i]));
      actual.push_back(gradient_at(i));
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(actual[i], expected[i], allowed * largest(expected)) << what;
    }
  };
  check("x", c.x, [&](std::size_t i) { return number_at(c.shape.dtype, result.dx.data(), i); });
  const std::vector<ExpertTensor> names = expert_tensors(c.shape);
  for (std::size_t tensor = 0; tensor < names.size(); ++tensor) {
    check(names[tensor].name.c_str(), c.tensors[tensor],
          [&](std::size_t i) { return double{result.gradients[tensor][i]}; });
  }
}

TEST_P(Experts, GiveATokenTheSameBitsInAnyBatch) {
  Case c(GetParam(), 420, 4);
  const Outcome all = run(c, 0, c.tokens, 0);
  for (const auto& [first, count] : std::initializer_list<std::pair<std::size_t, std::size_t>>{
           {0, 1}, {7, 1}, {419, 1}, {3, 2}, {100, 13}, {1, 64}, {200, 200}, {11, 400}}) {
    const Outcome some = run(c, first, count, 77);
    const auto is_part = [&](const std::vector<std::byte>& part, const std::vector<std::byte>& whole,
                             std::size_t row_bytes) {
      return std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(first * row_bytes));
    };
    EXPECT_TRUE(is_part(some.y, all.y, c.row_bytes())) << first << " " << count;
    EXPECT_TRUE(is_part(some.preactivations, all.preactivations, c.preactivation_row_bytes())) << first << " " << count;
    EXPECT_TRUE(is_part(some.dx, all.dx, c.row_bytes())) << first << " " << count;
  }
  // Without room for preactivations the results are the same.
  std::vector<std::byte> y(all.y.size());
  ExpertWorkspace workspace;
  run_forward({c.shape, c.packed.reserve(0), c.tokens, c.x_bytes.data(), y.data(), nullptr}, workspace, never);
  EXPECT_EQ(y, all.y);
}

TEST_P(Experts, GiveTheSameWeightGradientsFromChunksOfWholeBlocks) {
  const std::size_t block = gemm::gradient_block;
  Case c(GetParam(), 2 * block + 90, 5);
  const Outcome all = run(c, 0, c.tokens, block);
  EXPECT_EQ(run(c, 0, c.tokens, block).gradients, all.gradients);
  Outcome parts = run(c, 0, block, block);
  parts = run(c, block, c.tokens - block, 2 * block, std::move(parts));
  EXPECT_EQ(parts.gradients, all.gradients);
}

TEST_P(Experts, StopWhenTold) {
  Case c(GetParam(), 3, 6);
  const std::atomic<bool> stopped{true};
  std::vector<std::byte> y(c.x_bytes.size(), std::byte{0x55});
  const std::vector<std::byte> before = y;
  ExpertWorkspace workspace;
  run_forward({c.shape, c.packed.reserve(0), c.tokens, c.x_bytes.data(), y.data(), nullptr}, workspace, stopped);
  EXPECT_EQ(y, before);
}

TEST(ExpertLayouts, PutInferenceFirst) {
  for (const ExpertShape& shape : shapes) {
    Case c(shape, 1, 7);
    const ExpertLayout layout(shape);
    gemm::AlignedArray<std::byte> inference;
    std::vector<std::vector<std::byte>> bytes;
    std::vector<const void*> pointers;
    for (const Numbers& tensor : c.tensors) bytes.push_back(stored(shape.dtype, tensor));
    for (const std::vector<std::byte>& tensor : bytes) pointers.push_back(tensor.data());
    pack_expert(shape, pointers, false, inference.reserve(layout.inference_bytes));
    const ExpertLayout::Matrix& last = layout.second;
    const std::size_t end = last.offset + gemm::packed_cells(shape.dtype, last.columns, last.depth) * 4;
    EXPECT_EQ(std::memcmp(inference.reserve(0), c.packed.reserve(0), end), 0);
    EXPECT_LE(layout.inference_bytes, layout.training_bytes);
  }
}

}  // namespace
}  // namespace pccl::moe
