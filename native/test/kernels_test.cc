// Every kernel, in every version that this CPU can run, against a slow reference that is written another way: one
// element at a time, 16-bit formats by ldexp and nearbyint. Bits are compared, of NaN too.
#include "reduce/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "every_target.h"

namespace pccl {
namespace {

using Bits = std::uint64_t;  // of one element

constexpr ReduceOp reduce_ops[] = {ReduceOp::sum, ReduceOp::avg, ReduceOp::max, ReduceOp::min, ReduceOp::prod};

std::vector<DType> all_dtypes() {
  std::vector<DType> all;
  for (std::uint8_t number = 0; is_dtype(number); ++number) all.push_back(static_cast<DType>(number));
  return all;
}

bool is_signed(DType dtype) { return dtype_name(dtype)[0] == 'i'; }
int width(DType dtype) { return static_cast<int>(8 * element_bytes(dtype)); }
Bits cut(Bits bits, int width) { return width == 64 ? bits : bits & ((Bits{1} << width) - 1); }

struct FloatFormat {
  int mantissa_bits;
  int exponent_bits;
};

FloatFormat format_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return {10, 5};
    case DType::bf16:
      return {7, 8};
    case DType::f32:
      return {23, 8};
    default:
      return {52, 11};
  }
}

Bits infinity(DType dtype) {
  const FloatFormat format = format_of(dtype);
  return ((Bits{1} << format.exponent_bits) - 1) << format.mantissa_bits;
}
Bits quiet_nan(DType dtype) { return infinity(dtype) | Bits{1} << (format_of(dtype).mantissa_bits - 1); }

// Exact.
double decode(DType dtype, Bits bits) {
  const FloatFormat format = format_of(dtype);
  const Bits mantissa = cut(bits, format.mantissa_bits);
  const int exponent = static_cast<int>(cut(bits >> format.mantissa_bits, format.exponent_bits));
  const int exponent_max = (1 << format.exponent_bits) - 1;
  const double sign = bits >> (width(dtype) - 1) ? -1.0 : 1.0;
  if (exponent == exponent_max) return mantissa == 0 ? sign * INFINITY : std::nan("");
  const double significand = static_cast<double>(exponent == 0 ? mantissa : mantissa | Bits{1} << format.mantissa_bits);
  return sign * std::ldexp(significand, std::max(exponent, 1) - exponent_max / 2 - format.mantissa_bits);
}

Bits encode(DType dtype, double value) {
  if (std::isnan(value)) return quiet_nan(dtype);
  if (dtype == DType::f64) return std::bit_cast<std::uint64_t>(value);
  if (dtype == DType::f32) return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  const FloatFormat format = format_of(dtype);
  const Bits sign = Bits{std::signbit(value)} << (width(dtype) - 1);
  if (std::isinf(value)) return sign | infinity(dtype);
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const int exponent = value == 0 ? 1 - bias : std::max(std::ilogb(value), 1 - bias);
  const double rounded = std::nearbyint(std::ldexp(std::fabs(value), format.mantissa_bits - exponent));
  // A significand that was rounded up to the next power of two carries into the exponent.
  const Bits magnitude = (static_cast<Bits>(exponent + bias - 1) << format.mantissa_bits) + static_cast<Bits>(rounded);
  return sign | std::min(magnitude, infinity(dtype));
}

template <typename T>
T compute(ReduceOp op, T a, T b, std::uint32_t divisor) {
  switch (op) {
    case ReduceOp::sum:
      return a + b;
    case ReduceOp::avg:
      return (a + b) / static_cast<T>(divisor);
    case ReduceOp::prod:
      return a * b;
    case ReduceOp::max:
    case ReduceOp::min: {
      if (std::isnan(a) || std::isnan(b)) return a + b;
      const bool a_is_less = a == b ? std::signbit(a) : a < b;
      return a_is_less == (op == ReduceOp::min) ? a : b;
    }
  }
  return 0;
}

Bits reference(DType dtype, ReduceOp op, Bits a, Bits b, std::uint32_t divisor) {
  const int size = width(dtype);
  if (is_floating_point(dtype)) {
    const double x = decode(dtype, a);
    const double y = decode(dtype, b);
    if (dtype == DType::f64) return encode(dtype, compute(op, x, y, divisor));
    return encode(dtype, compute(op, static_cast<float>(x), static_cast<float>(y), divisor));
  }
  const auto value = [&](Bits bits) {
    const auto wide = static_cast<__int128>(cut(bits, size));
    return is_signed(dtype) && (bits >> (size - 1) & 1) ? wide - (static_cast<__int128>(1) << size) : wide;
  };
  switch (op) {
    case ReduceOp::sum:
      return cut(a + b, size);
    case ReduceOp::avg:
      return cut(static_cast<Bits>(value(a + b) / divisor), size);
    case ReduceOp::prod:
      return cut(a * b, size);
    case ReduceOp::max:
      return value(a) < value(b) ? b : a;
    case ReduceOp::min:
      return value(a) < value(b) ? a : b;
  }
  return 0;
}

std::vector<Bits> special_values(DType dtype) {
  const int size = width(dtype);
  const Bits top = Bits{1} << (size - 1);
  std::vector<Bits> values = {0, 1, 2, 3, top - 1, top, top + 1, cut(~Bits{0}, size), cut(~Bits{1}, size)};
  if (is_floating_point(dtype)) {
    const Bits inf = infinity(dtype);
    const Bits smallest_normal = Bits{1} << format_of(dtype).mantissa_bits;
    for (const Bits bits : {inf, inf - 1, inf + 1, quiet_nan(dtype), quiet_nan(dtype) + 1, smallest_normal,
                            smallest_normal - 1, encode(dtype, 1), encode(dtype, 1.5), encode(dtype, 3)}) {
      values.push_back(bits);
      values.push_back(bits | top);
    }
  }
  return values;
}

struct Pairs {
  std::vector<Bits> local;
  std::vector<Bits> incoming;
};

// Any bits, special values, and pairs that nearly cancel out, of which sums round in every way.
Pairs make_pairs(DType dtype, std::size_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  const int size = width(dtype);
  const std::vector<Bits> special = special_values(dtype);
  const auto any = [&] { return random() % 4 == 0 ? special[random() % special.size()] : cut(random(), size); };
  Pairs pairs;
  for (std::size_t i = 0; i < count; ++i) {
    const Bits a = any();
    const Bits near = a ^ (random() % 2 << (size - 1)) ^ random() % 16;
    pairs.local.push_back(a);
    pairs.incoming.push_back(random() % 4 == 0 ? near : any());
  }
  return pairs;
}

std::vector<std::uint8_t> bytes_of(const std::vector<Bits>& values, DType dtype) {
  const std::size_t element = element_bytes(dtype);
  std::vector<std::uint8_t> bytes(values.size() * element);
  for (std::size_t i = 0; i < values.size(); ++i) std::memcpy(&bytes[i * element], &values[i], element);
  return bytes;
}

struct Offsets {
  std::size_t into, local, incoming;  // in elements, from a cache line's begin
};

// One call on copies that lie at these offsets between bytes that must stay as they are.
class Call {
 public:
  // divisor 0: combine, else combine_last.
  Call(DType dtype, ReduceOp op, std::uint32_t divisor, const Pairs& pairs)
      : dtype_(dtype),
        op_(op),
        divisor_(divisor),
        local_(bytes_of(pairs.local, dtype)),
        incoming_(bytes_of(pairs.incoming, dtype)) {
    std::vector<Bits> expected;
    for (std::size_t i = 0; i < pairs.local.size(); ++i) {
      const bool divides = op == ReduceOp::avg && divisor > 0;
      expected.push_back(reference(dtype, op, pairs.local[i], pairs.incoming[i], divides ? divisor : 1));
    }
    expected_ = bytes_of(expected, dtype);
  }

  // Empty, or what is wrong with the first `count` elements.
  std::string check(std::size_t count, const Offsets& offsets, bool in_place) const {
    const std::size_t element = element_bytes(dtype_);
    const std::size_t bytes = count * element;
    Buffer local(local_, bytes, offsets.local * element);
    const Buffer incoming(incoming_, bytes, offsets.incoming * element);
    Buffer separate({}, bytes, offsets.into * element);
    Buffer& into = in_place ? local : separate;
    if (divisor_ == 0) {
      combine(dtype_, op_, into.data, local.data, incoming.data, count);
    } else {
      combine_last(dtype_, op_, into.data, local.data, incoming.data, count, divisor_);
    }
    const std::string what = std::string(reduce_op_name(op_)) + " of " + std::to_string(count) + " " +
                             dtype_name(dtype_) + ", divisor " + std::to_string(divisor_) +
                             (in_place ? ", in place" : "");
    if (!into.guards_are_whole(bytes)) return what + ": wrote outside of its memory";
    for (std::size_t i = 0; i < count; ++i) {
      if (std::memcmp(into.data + i * element, &expected_[i * element], element) == 0) continue;
      const auto hex = [&](const std::uint8_t* from) {
        Bits bits = 0;
        std::memcpy(&bits, from + i * element, element);
        char text[20];
        std::snprintf(text, sizeof(text), "%#llx", static_cast<unsigned long long>(bits));
        return std::string(text);
      };
      return what + ", element " + std::to_string(i) + ": " + hex(local_.data()) + " and " + hex(incoming_.data()) +
             " gave " + hex(into.data) + ", expected " + hex(expected_.data());
    }
    return "";
  }

 private:
  static constexpr std::size_t guard = 128;

  struct Buffer {
    Buffer(const std::vector<std::uint8_t>& content, std::size_t bytes, std::size_t offset)
        : memory(bytes + offset + 2 * guard + 64, 0xa5) {
      void* at = memory.data() + guard;
      std::size_t space = memory.size() - guard;
      data = static_cast<std::uint8_t*>(std::align(64, 1, at, space)) + offset;
      if (!content.empty()) std::memcpy(data, content.data(), bytes);
    }
    Buffer(const Buffer&) = delete;
    bool guards_are_whole(std::size_t bytes) const {
      const auto whole = [](std::uint8_t byte) { return byte == 0xa5; };
      return std::all_of(data - guard, data, whole) &&
             std::all_of<const std::uint8_t*>(data + bytes, memory.data() + memory.size(), whole);
    }
    std::vector<std::uint8_t> memory;
    std::uint8_t* data = nullptr;
  };

  DType dtype_;
  ReduceOp op_;
  std::uint32_t divisor_;
  std::vector<std::uint8_t> local_;
  std::vector<std::uint8_t> incoming_;
  std::vector<std::uint8_t> expected_;
};

using test::on_every_target;

TEST(Kernels, EveryLengthAtAnyAlignment) {
  for (const DType dtype : all_dtypes()) {
    const Pairs pairs = make_pairs(dtype, 200, 1);
    for (const ReduceOp op : reduce_ops) {
      for (const std::uint32_t divisor : {0u, 3u}) {
        const Call call(dtype, op, divisor, pairs);
        on_every_target([&] {
          std::mt19937 random(2);
          const std::size_t line = 64 / element_bytes(dtype);
          for (std::size_t count = 0; count <= 200; ++count) {
            const Offsets offsets = {random() % line, random() % line, random() % line};
            ASSERT_EQ(call.check(count, offsets, false), "");
            ASSERT_EQ(call.check(count, offsets, true), "");
          }
        });
      }
    }
  }
}

TEST(Kernels, EveryAlignment) {
  for (const DType dtype : all_dtypes()) {
    const Call call(dtype, ReduceOp::sum, 0, make_pairs(dtype, 133, 3));
    on_every_target([&] {
      const std::size_t line = 64 / element_bytes(dtype);
      for (std::size_t i = 0; i < line; ++i) {
        ASSERT_EQ(call.check(133, {i, (3 * i + 1) % line, (5 * i + 2) % line}, false), "");
        ASSERT_EQ(call.check(133, {0, i, line - 1 - i}, true), "");
      }
    });
  }
}

TEST(Kernels, EveryOperationOnManyValues) {
  constexpr std::size_t count = 20'011;
  for (const DType dtype : all_dtypes()) {
    const Pairs pairs = make_pairs(dtype, count, 4);
    for (const ReduceOp op : reduce_ops) {
      const Call call(dtype, op, 0, pairs);
      on_every_target([&] { ASSERT_EQ(call.check(count, {0, 1, 2}, false), ""); });
    }
  }
}

TEST(Kernels, AveragesByEveryKindOfDivisor) {
  constexpr std::size_t count = 5'000;
  constexpr std::uint32_t divisors[] = {1,   2,   3,   4,   5,   6,   7,     10,    127,
                                        128, 129, 255, 256, 257, 641, 32768, 65535, 65536};
  for (const DType dtype : all_dtypes()) {
    const Pairs pairs = make_pairs(dtype, count, 5);
    for (const std::uint32_t divisor : divisors) {
      const Call call(dtype, ReduceOp::avg, divisor, pairs);
      on_every_target([&] { ASSERT_EQ(call.check(count, {0, 0, 0}, true), ""); });
    }
  }
}

TEST(Kernels, EveryPairOfBytes) {
  Pairs pairs;
  for (Bits i = 0; i < 65536; ++i) {
    pairs.local.push_back(i & 255);
    pairs.incoming.push_back(i >> 8);
  }
  for (const DType dtype : {DType::u8, DType::i8}) {
    for (const ReduceOp op : reduce_ops) {
      const Call call(dtype, op, 7, pairs);
      on_every_target([&] { ASSERT_EQ(call.check(65536, {0, 0, 0}, true), ""); });
    }
  }
}

// With itself, with zero, with one and with something else: each number is widened, and results of every size and
// both kinds of ties are rounded.
TEST(Kernels, EveryHalfPrecisionNumber) {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    std::mt19937_64 random(6);
    Pairs pairs;
    for (Bits i = 0; i < 65536; ++i) {
      for (const Bits other : {i, Bits{0}, encode(dtype, 1), cut(random(), 16)}) {
        pairs.local.push_back(i);
        pairs.incoming.push_back(other);
      }
    }
    for (const ReduceOp op : reduce_ops) {
      const Call call(dtype, op, 3, pairs);
      on_every_target([&] { ASSERT_EQ(call.check(pairs.local.size(), {0, 0, 0}, true), ""); });
    }
  }
}

// The promises, spelled out.
TEST(Kernels, SayWhatTheyPromise) {
  const auto combined = [](DType dtype, ReduceOp op, auto a, auto b, std::uint32_t divisor = 1) {
    auto result = a;
    combine_last(dtype, op, &result, &a, &b, 1, divisor);
    return result;
  };
  using i32 = std::int32_t;
  using u16 = std::uint16_t;
  EXPECT_EQ(combined(DType::i32, ReduceOp::sum, i32{INT32_MAX}, i32{1}), INT32_MIN);
  EXPECT_EQ(combined(DType::i32, ReduceOp::avg, i32{-7}, i32{0}, 2), -3);
  EXPECT_EQ(combined(DType::i32, ReduceOp::avg, i32{7}, i32{0}, 2), 3);
  EXPECT_EQ(combined(DType::u64, ReduceOp::avg, UINT64_MAX, std::uint64_t{0}, 1), UINT64_MAX);
  EXPECT_EQ(combined(DType::i64, ReduceOp::avg, INT64_MIN, std::int64_t{0}, 3), INT64_MIN / 3);
  EXPECT_EQ(combined(DType::u8, ReduceOp::prod, std::uint8_t{200}, std::uint8_t{2}), 144);
  EXPECT_TRUE(std::signbit(combined(DType::f32, ReduceOp::min, 0.0f, -0.0f)));
  EXPECT_FALSE(std::signbit(combined(DType::f32, ReduceOp::max, -0.0f, 0.0f)));
  EXPECT_TRUE(std::isnan(combined(DType::f64, ReduceOp::max, std::nan(""), 1.0)));
  const float indefinite = combined(DType::f32, ReduceOp::sum, INFINITY, -INFINITY);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(indefinite), 0x7fc00000u);
  // 1 + 2^-8 lies half-way between two bf16, 1 and 1 + 2^-7, and the even one is 1.
  EXPECT_EQ(combined(DType::bf16, ReduceOp::sum, u16{0x3f80}, u16{0x3b80}), 0x3f80);
  // 65504 + 16 is half-way between the largest f16 and what would be the next.
  EXPECT_EQ(combined(DType::f16, ReduceOp::sum, u16{0x7bff}, u16{0x4c00}), 0x7c00);
  EXPECT_EQ(combined(DType::f16, ReduceOp::avg, u16{0x7bff}, u16{0x7bff}, 2), 0x7bff) << "the sum has room in f32";
}

}  // namespace
}  // namespace pccl
