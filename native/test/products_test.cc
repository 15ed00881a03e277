// Matrix products in every version that this CPU can run, bit by bit against the same sums written one after the
// other. That a result is such a sum says everything about it: it doesn't depend on the batch, on the place in it, or
// on the neighbours. Against double precision and oneDNN the sums themselves are checked.
#include "gemm/multiply.h"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "gemm/column_sums.h"
#include "gemm/packing.h"
#include "one_dnn.h"

namespace pccl::gemm {
namespace {

constexpr DType both_dtypes[] = {DType::f32, DType::bf16};

// Numbers of one dtype, rows × columns.
struct Matrix {
  DType dtype;
  std::size_t rows;
  std::size_t columns;
  std::vector<std::byte> bytes;

  Matrix(DType type, std::size_t row_count, std::size_t column_count)
      : dtype(type), rows(row_count), columns(column_count), bytes(row_count * column_count * element_bytes(type)) {}

  float get(std::size_t row, std::size_t column) const {
    const std::size_t i = row * columns + column;
    if (dtype == DType::f32) return reinterpret_cast<const float*>(bytes.data())[i];
    return std::bit_cast<float>(std::uint32_t{reinterpret_cast<const std::uint16_t*>(bytes.data())[i]} << 16);
  }
  // bf16 drops the lower bits.
  void set(std::size_t row, std::size_t column, float value) {
    const std::size_t i = row * columns + column;
    if (dtype == DType::f32) {
      reinterpret_cast<float*>(bytes.data())[i] = value;
    } else {
      reinterpret_cast<std::uint16_t*>(bytes.data())[i] =
          static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    }
  }
  Operand by_rows() const { return {dtype, bytes.data(), rows, columns, columns, 1}; }
  Operand by_columns() const { return {dtype, bytes.data(), columns, rows, 1, columns}; }
};

Matrix random_matrix(DType dtype, std::size_t rows, std::size_t columns, std::mt19937& random) {
  std::normal_distribution<float> normal;
  Matrix matrix(dtype, rows, columns);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) matrix.set(row, column, normal(random));
  }
  return matrix;
}

struct Packed {
  std::vector<Cell> cells;
  PackedMatrix matrix;

  explicit Packed(const Operand& operand)
      : cells(packed_cells(operand.dtype, operand.width, operand.depth)),
        matrix{cells.data(), operand.width, operand.depth} {
    pack(operand, cells.data());
  }
};

bool has_fused_multiply_add(std::int64_t target) {
#if HWY_ARCH_X86
  return target <= HWY_AVX2;
#else
  return target != HWY_EMU128 && target != HWY_SCALAR;
#endif
}

// The sum over a row's and a column's products that a kernel must give, from `sum` on.
float chain(const Matrix& left, std::size_t row, const Matrix& right, std::size_t column, float sum, bool is_fused) {
  const std::size_t depth = left.columns;
  const auto add = [&](std::size_t k) {
    const float a = left.get(row, k);
    const float b = right.get(k, column);
    sum = is_fused ? std::fma(a, b, sum) : sum + a * b;
  };
  if (left.dtype == DType::f32) {
    for (std::size_t k = 0; k < depth; ++k) add(k);
    return sum;
  }
  for (std::size_t k = 0; k < depth; k += 2) {
    if (k + 1 < depth) add(k + 1);
    add(k);
  }
  return sum;
}

std::uint32_t bits(float value) { return std::isnan(value) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(value); }

std::vector<float> product(const Matrix& left, const PackedMatrix& right, const float* bias = nullptr) {
  std::vector<float> into(left.rows * right.columns, std::numeric_limits<float>::quiet_NaN());
  Workspace workspace;
  multiply(left.by_rows(), right, bias, {into.data(), right.columns}, workspace);
  return into;
}

// Runs a test with every version of the kernels.
class Products : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};
INSTANTIATE_TEST_SUITE_P(Targets, Products, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& test) { return std::string(hwy::TargetName(test.param)); });

TEST_P(Products, AreTheSumsInOrderForAnyNumberOfRows) {
  std::mt19937 random(1);
  for (const DType dtype : both_dtypes) {
    for (const auto& [depth, columns] : std::initializer_list<std::pair<std::size_t, std::size_t>>{
             {33, 7}, {1, 1}, {2, 65}, {64, 32}, {31, 100}}) {
      const Matrix left = random_matrix(dtype, 200, depth, random);
      const Matrix right = random_matrix(dtype, depth, columns, random);
      const Packed packed(right.by_columns());
      std::vector<float> expected;
      for (std::size_t row = 0; row < left.rows; ++row) {
        for (std::size_t column = 0; column < columns; ++column) {
          expected.push_back(chain(left, row, right, column, 0, has_fused_multiply_add(GetParam())));
        }
      }
      for (std::size_t rows = 1; rows <= left.rows; ++rows) {
        // Another first row each time: a row is at another place.
        const std::size_t first = rows % 7;
        if (first + rows > left.rows) continue;
        std::vector<float> into(rows * columns);
        Workspace workspace;
        multiply(left.by_rows().from(first, rows, 0, depth), packed.matrix, nullptr, {into.data(), columns}, workspace);
        for (std::size_t i = 0; i < into.size(); ++i) {
          ASSERT_EQ(bits(into[i]), bits(expected[first * columns + i]))
              << dtype_name(dtype) << " depth " << depth << " columns " << columns << " rows " << rows << " at " << i;
        }
      }
    }
  }
}

TEST_P(Products, AreTheSumsInOrderOverManyBlocks) {
  std::mt19937 random(2);
  const bool is_fused = has_fused_multiply_add(GetParam());
  for (const DType dtype : both_dtypes) {
    for (const auto& [rows, depth, columns] : std::initializer_list<std::array<std::size_t, 3>>{
             {3, 2880, 2880}, {17, 2881, 45}, {801, 1030, 40}}) {
      const Matrix left = random_matrix(dtype, rows, depth, random);
      const Matrix right = random_matrix(dtype, depth, columns, random);
      std::vector<float> bias(columns);
      for (float& value : bias) value = std::normal_distribution<float>()(random);
      const std::vector<float> into = product(left, Packed(right.by_columns()).matrix, bias.data());
      for (int sample = 0; sample < 300; ++sample) {
        const std::size_t row = random() % rows;
        const std::size_t column = random() % columns;
        ASSERT_EQ(bits(into[row * columns + column]), bits(chain(left, row, right, column, bias[column], is_fused)))
            << dtype_name(dtype) << " " << rows << "x" << depth << "x" << columns << " at " << row << "," << column;
      }
    }
  }
}

TEST_P(Products, AreUntouchedByNeighboursThatArentNumbers) {
  std::mt19937 random(3);
  for (const DType dtype : both_dtypes) {
    for (const std::size_t rows : {std::size_t{2}, std::size_t{12}, std::size_t{13}, std::size_t{50}}) {
      const std::size_t depth = 37;
      const std::size_t columns = 41;
      const Matrix left = random_matrix(dtype, rows, depth, random);
      const Matrix right = random_matrix(dtype, depth, columns, random);
      const std::vector<float> expected = product(left, Packed(right.by_columns()).matrix);
      const std::size_t kept_row = random() % rows;
      const std::size_t kept_column = random() % columns;
      const float strange[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(), 0};
      for (const float value : strange) {
        Matrix others = left;
        for (std::size_t row = 0; row < rows; ++row) {
          for (std::size_t k = 0; row != kept_row && k < depth; ++k) others.set(row, k, value);
        }
        const std::vector<float> by_row = product(others, Packed(right.by_columns()).matrix);
        for (std::size_t i = 0; i < columns; ++i) {
          ASSERT_EQ(bits(by_row[kept_row * columns + i]), bits(expected[kept_row * columns + i])) << value;
        }
        Matrix other_columns = right;
        for (std::size_t column = 0; column < columns; ++column) {
          for (std::size_t k = 0; column != kept_column && k < depth; ++k) other_columns.set(k, column, value);
        }
        const std::vector<float> by_column = product(left, Packed(other_columns.by_columns()).matrix);
        for (std::size_t i = kept_column; i < by_column.size(); i += columns) {
          ASSERT_EQ(bits(by_column[i]), bits(expected[i])) << value;
        }
      }
    }
  }
}

TEST_P(Products, DontDependOnThreadsThatShareTheColumns) {
  std::mt19937 random(4);
  for (const DType dtype : both_dtypes) {
    const std::size_t rows = 70;
    const std::size_t depth = 600;
    const std::size_t columns = 100;
    const Matrix left = random_matrix(dtype, rows, depth, random);
    const Matrix right = random_matrix(dtype, depth, columns, random);
    const Packed packed(right.by_columns());
    const std::vector<float> expected = product(left, packed.matrix);
    std::vector<float> into(rows * columns);
    const auto part = [&](std::size_t first, std::size_t count) {
      Workspace workspace;
      const PackedMatrix panels{packed.matrix.cells + packed_cells(dtype, first, depth), count, depth};
      multiply(left.by_rows(), panels, nullptr, {into.data() + first, columns}, workspace);
    };
    std::thread other(part, 2 * panel_columns, columns - 2 * panel_columns);
    part(0, 2 * panel_columns);
    other.join();
    ASSERT_EQ(into, expected);
  }
}

TEST_P(Products, GoOnFromWhatIsThere) {
  std::mt19937 random(5);
  for (const DType dtype : both_dtypes) {
    const Matrix left = random_matrix(dtype, 29, 52, random);
    const Matrix right = random_matrix(dtype, 52, 75, random);
    const std::vector<float> expected = product(left, Packed(right.by_columns()).matrix);
    const Packed upper(right.by_columns().from(0, 75, 0, 20));
    const Packed lower(right.by_columns().from(0, 75, 20, 32));
    std::vector<float> into(29 * 75);
    Workspace workspace;
    multiply(left.by_rows().from(0, 29, 0, 20), upper.matrix, nullptr, {into.data(), 75}, workspace);
    multiply_further(left.by_rows().from(0, 29, 20, 32), lower.matrix, {into.data(), 75}, workspace);
    ASSERT_EQ(into, expected);
  }
}

TEST_P(Products, PackBothLayoutsOfAMatrixAlike) {
  std::mt19937 random(6);
  for (const DType dtype : both_dtypes) {
    for (const auto& [depth, columns] :
         std::initializer_list<std::pair<std::size_t, std::size_t>>{{33, 7}, {5, 64}, {70, 33}, {1, 1}}) {
      const Matrix matrix = random_matrix(dtype, depth, columns, random);
      Matrix transposed(dtype, columns, depth);
      for (std::size_t row = 0; row < depth; ++row) {
        for (std::size_t column = 0; column < columns; ++column) transposed.set(column, row, matrix.get(row, column));
      }
      ASSERT_EQ(Packed(matrix.by_columns()).cells, Packed(transposed.by_rows()).cells);
    }
  }
}

// The gradient that add_gradient must give, for one element.
float gradient_chain(const Matrix& left, std::size_t row, const Matrix& right, std::size_t column,
                     std::size_t first_position, float into, bool is_fused) {
  for (std::size_t token = 0; token < left.rows;) {
    const std::size_t end = std::min(left.rows, token + gradient_block - (first_position + token) % gradient_block);
    float sum = 0;
    const auto add = [&](std::size_t k) {
      const float a = left.get(k, row);
      const float b = right.get(k, column);
      sum = is_fused ? std::fma(a, b, sum) : sum + a * b;
    };
    while (token < end) {
      if (left.dtype == DType::f32) {
        add(token++);
        continue;
      }
      if (token + 1 < end) add(token + 1);
      add(token);
      token = std::min(token + 2, end);
    }
    into += sum;
  }
  return into;
}

TEST_P(Products, GiveGradientsInBlocksOfPositions) {
  std::mt19937 random(7);
  const bool is_fused = has_fused_multiply_add(GetParam());
  for (const DType dtype : both_dtypes) {
    for (const auto& [tokens, first] : std::initializer_list<std::pair<std::size_t, std::size_t>>{
             {1, 0}, {7, 1000}, {511, 1}, {512, 512}, {1500, 300}}) {
      const Matrix left = random_matrix(dtype, tokens, 43, random);
      const Matrix right = random_matrix(dtype, tokens, 37, random);
      std::vector<float> into(43 * 37, 1.5f);
      std::vector<float> sums(37, 1.5f);
      Workspace workspace;
      add_gradient(left.by_columns(), right.by_columns(), first, {into.data(), 37}, workspace);
      add_column_sums(dtype, right.bytes.data(), tokens, 37, first, sums.data());
      Matrix ones(dtype, tokens, 1);
      for (std::size_t token = 0; token < tokens; ++token) ones.set(token, 0, 1);
      for (std::size_t column = 0; column < 37; ++column) {
        for (std::size_t row = 0; row < 43; ++row) {
          const float expected = gradient_chain(left, row, right, column, first, 1.5f, is_fused);
          ASSERT_EQ(bits(into[row * 37 + column]), bits(expected)) << dtype_name(dtype) << " tokens " << tokens;
        }
        // A bias's sums take the tokens one by one.
        if (dtype == DType::f32) {
          ASSERT_EQ(bits(sums[column]), bits(gradient_chain(ones, 0, right, column, first, 1.5f, is_fused)));
        } else {
          ASSERT_NEAR(sums[column], gradient_chain(ones, 0, right, column, first, 1.5f, is_fused), 1e-3);
        }
      }
    }
  }
}

TEST_P(Products, GiveTheSameGradientsFromPartsInOrder) {
  std::mt19937 random(8);
  for (const DType dtype : both_dtypes) {
    const Matrix left = random_matrix(dtype, 3 * gradient_block, 20, random);
    const Matrix right = random_matrix(dtype, 3 * gradient_block, 50, random);
    Workspace workspace;
    const auto part = [&](std::size_t first, std::size_t count, float* into) {
      add_gradient(left.by_columns().from(0, 20, first, count), right.by_columns().from(0, 50, first, count), first,
                   {into, 50}, workspace);
    };
    std::vector<float> expected(20 * 50);
    part(0, left.rows, expected.data());
    std::vector<float> in_turn(20 * 50);
    part(0, gradient_block, in_turn.data());
    part(gradient_block, 2 * gradient_block, in_turn.data());
    EXPECT_EQ(in_turn, expected);
    // Blocks that were summed elsewhere, added in order.
    std::vector<float> added(20 * 50);
    for (std::size_t block = 0; block < 3; ++block) {
      std::vector<float> elsewhere(20 * 50);
      part(block * gradient_block, gradient_block, elsewhere.data());
      for (std::size_t i = 0; i < added.size(); ++i) added[i] += elsewhere[i];
    }
    EXPECT_EQ(added, expected);
  }
}

TEST(ProductsOnThisCpu, AreNearThoseOfDoublePrecision) {
  std::mt19937 random(9);
  for (const DType dtype : both_dtypes) {
    const std::size_t depth = 4096;
    const Matrix left = random_matrix(dtype, 20, depth, random);
    const Matrix right = random_matrix(dtype, depth, 40, random);
    const std::vector<float> into = product(left, Packed(right.by_columns()).matrix);
    for (std::size_t i = 0; i < into.size(); ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < depth; ++k) sum += double{left.get(i / 40, k)} * right.get(k, i % 40);
      EXPECT_NEAR(into[i], sum, 64 * 2e-5);
    }
    // The sum of 8192 tokens, in blocks, against one of all tokens.
    const Matrix x = random_matrix(dtype, 8192, 8, random);
    const Matrix dy = random_matrix(dtype, 8192, 8, random);
    std::vector<float> gradient(64);
    Workspace workspace;
    add_gradient(x.by_columns(), dy.by_columns(), 0, {gradient.data(), 8}, workspace);
    double worst = 0;
    double largest = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      double sum = 0;
      for (std::size_t token = 0; token < x.rows; ++token) sum += double{x.get(token, i / 8)} * dy.get(token, i % 8);
      worst = std::max(worst, std::abs(gradient[i] - sum));
      largest = std::max(largest, std::abs(sum));
    }
    EXPECT_LT(worst, 2e-6 * largest);
  }
}

TEST(ProductsOnThisCpu, AreNearThoseOfOneDnn) {
#ifdef PCCL_ONE_DNN
  std::mt19937 random(10);
  for (const DType dtype : both_dtypes) {
    for (const auto& [rows, depth, columns] : std::initializer_list<std::array<std::size_t, 3>>{
             {1, 33, 7}, {64, 1024, 1024}, {100, 1000, 130}}) {
      const Matrix left = random_matrix(dtype, rows, depth, random);
      const Matrix right = random_matrix(dtype, depth, columns, random);
      const std::vector<float> into = product(left, Packed(right.by_columns()).matrix);
      OneDnnProduct other(dtype, rows, depth, columns, left.bytes.data(), right.bytes.data());
      const float* const expected = other.run();
      for (std::size_t i = 0; i < into.size(); ++i) ASSERT_NEAR(into[i], expected[i], 5e-4);
    }
  }
#else
  GTEST_SKIP() << "built without oneDNN (libdnnl-dev), or with a sanitizer";
#endif
}

}  // namespace
}  // namespace pccl::gemm
