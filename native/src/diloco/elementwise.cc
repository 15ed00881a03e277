#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "diloco/elementwise.cc"
#include <hwy/foreach_target.h>
//
#include "diloco/elementwise.h"

#include <cstring>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace pccl::diloco {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// body(d, i) handles as many elements from i on as d has lanes: vectors first, then one by one, which rounds alike.
template <class Body>
void walk(std::size_t count, const Body& body) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  for (; i < count; ++i) body(one, i);
}

template <class D>
HWY_INLINE auto load(D d, const float* array, std::size_t i) {
  return hn::LoadU(d, array + i);
}

// Sums have eight partial sums, element i going to the (i mod 8)th, whatever a CPU's vectors hold.
constexpr std::size_t partial_sums = 8;
constexpr std::size_t block = 1024;

void add_squares(const float* values, std::size_t count, double* sums) {
  const hn::CappedTag<double, partial_sums> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t whole = count - count % partial_sums;
  for (std::size_t part = 0; part < partial_sums; part += lanes) {
    auto sum = hn::LoadU(d, sums + part);
    for (std::size_t i = part; i < whole; i += partial_sums) {
      const auto value = hn::PromoteTo(d, hn::LoadU(narrow, values + i));
      sum = hn::Add(sum, hn::Mul(value, value));
    }
    hn::StoreU(sum, d, sums + part);
  }
  for (std::size_t i = whole; i < count; ++i) {
    const double value = values[i];
    sums[i - whole] += value * value;
  }
}

double difference(const Operands& operands) {
  const float* const a = operands.arrays[0];
  const float* const b = operands.arrays[1];
  float* const into = operands.arrays[2];
  double sums[partial_sums] = {};
  // In blocks that stay in the cache, so that the memory is gone through once.
  for (std::size_t start = 0; start < operands.count; start += block) {
    const std::size_t count = HWY_MIN(block, operands.count - start);
    const float* const from = a + start;
    const float* const minus = b + start;
    float* const to = into + start;
    walk(count, [&](auto d, std::size_t i) {
      hn::StoreU(hn::Sub(load(d, from, i), load(d, minus, i)), d, to + i);
    });
    add_squares(to, count, sums);
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

void copy(const Operands& operands) {
  if (operands.count > 0) std::memcpy(operands.arrays[1], operands.arrays[0], operands.count * sizeof(float));
}

void scale(const Operands& operands) {
  float* const x = operands.arrays[0];
  const float factor = operands.factors[0];
  walk(operands.count, [=](auto d, std::size_t i) { hn::StoreU(hn::Mul(hn::Set(d, factor), load(d, x, i)), d, x + i); });
}

void add_scaled(const Operands& operands) {
  const float* const x = operands.arrays[0];
  float* const y = operands.arrays[1];
  const float factor = operands.factors[0];
  walk(operands.count, [=](auto d, std::size_t i) {
    hn::StoreU(hn::Add(load(d, y, i), hn::Mul(hn::Set(d, factor), load(d, x, i))), d, y + i);
  });
}

void sgd(const Operands& operands) {
  const float* const gradient = operands.arrays[0];
  const float* const theta = operands.arrays[1];
  float* const into = operands.arrays[2];
  const auto factors = operands.factors;
  walk(operands.count, [=](auto d, std::size_t i) {
    const auto g = hn::Mul(hn::Set(d, factors[0]), load(d, gradient, i));
    hn::StoreU(hn::Sub(load(d, theta, i), hn::Mul(hn::Set(d, factors[1]), g)), d, into + i);
  });
}

void nesterov(const Operands& operands) {
  const float* const gradient = operands.arrays[0];
  const float* const theta = operands.arrays[1];
  const float* const momentum = operands.arrays[2];
  float* const into = operands.arrays[3];
  float* const into_momentum = operands.arrays[4];
  const auto factors = operands.factors;
  walk(operands.count, [=](auto d, std::size_t i) {
    const auto mu = hn::Set(d, factors[2]);
    const auto g = hn::Mul(hn::Set(d, factors[0]), load(d, gradient, i));
    const auto m = hn::Add(hn::Mul(mu, load(d, momentum, i)), g);
    const auto step = hn::Mul(hn::Set(d, factors[1]), hn::Add(g, hn::Mul(mu, m)));
    const auto moved = hn::Sub(load(d, theta, i), step);
    hn::StoreU(m, d, into_momentum + i);
    hn::StoreU(moved, d, into + i);
  });
}

void adam(const Operands& operands) {
  const float* const gradient = operands.arrays[0];
  const float* const theta = operands.arrays[1];
  const float* const mean = operands.arrays[2];
  const float* const variance = operands.arrays[3];
  float* const into = operands.arrays[4];
  float* const into_mean = operands.arrays[5];
  float* const into_variance = operands.arrays[6];
  const auto factors = operands.factors;
  walk(operands.count, [=](auto d, std::size_t i) {
    const auto factor = [&](std::size_t index) { return hn::Set(d, factors[index]); };
    const auto g = hn::Mul(factor(0), load(d, gradient, i));
    const auto m = hn::Add(hn::Mul(factor(2), load(d, mean, i)), hn::Mul(factor(3), g));
    const auto v = hn::Add(hn::Mul(factor(4), load(d, variance, i)), hn::Mul(factor(5), hn::Mul(g, g)));
    const auto root = hn::Add(hn::Sqrt(hn::Div(v, factor(8))), factor(6));
    const auto step = hn::Mul(factor(1), hn::Div(hn::Div(m, factor(7)), root));
    const auto moved = hn::Sub(load(d, theta, i), step);
    hn::StoreU(m, d, into_mean + i);
    hn::StoreU(v, d, into_variance + i);
    hn::StoreU(moved, d, into + i);
  });
}

void mix(const Operands& operands) {
  const float* const theta = operands.arrays[0];
  float* const local = operands.arrays[1];
  const auto factors = operands.factors;
  walk(operands.count, [=](auto d, std::size_t i) {
    const auto own = hn::Mul(hn::Set(d, factors[0]), load(d, local, i));
    hn::StoreU(hn::Add(own, hn::Mul(hn::Set(d, factors[1]), load(d, theta, i))), d, local + i);
  });
}

void carry(const Operands& operands) {
  const float* const theta = operands.arrays[0];
  float* const start = operands.arrays[1];
  float* const local = operands.arrays[2];
  walk(operands.count, [=](auto d, std::size_t i) {
    const auto base = load(d, theta, i);
    hn::StoreU(hn::Add(base, hn::Sub(load(d, local, i), load(d, start, i))), d, local + i);
    hn::StoreU(base, d, start + i);
  });
}

double run_any(Kernel kernel, const Operands& operands) {
  switch (kernel) {
    case Kernel::difference:
      return difference(operands);
    case Kernel::copy:
      copy(operands);
      break;
    case Kernel::scale:
      scale(operands);
      break;
    case Kernel::add_scaled:
      add_scaled(operands);
      break;
    case Kernel::sgd:
      sgd(operands);
      break;
    case Kernel::nesterov:
      nesterov(operands);
      break;
    case Kernel::adam:
      adam(operands);
      break;
    case Kernel::mix:
      mix(operands);
      break;
    case Kernel::carry:
      carry(operands);
      break;
  }
  return 0;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pccl::diloco
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pccl::diloco {

namespace {

constexpr Signature signatures[] = {
    {Kernel::difference, "difference", 3, 0}, {Kernel::copy, "copy", 2, 0}, {Kernel::scale, "scale", 1, 1}, {Kernel::add_scaled, "addScaled", 2, 1},
    {Kernel::sgd, "sgd", 3, 2},               {Kernel::nesterov, "nesterov", 5, 3}, {Kernel::adam, "adam", 7, 9},
    {Kernel::mix, "mix", 2, 2},               {Kernel::carry, "carry", 3, 0},
};

}  // namespace

HWY_EXPORT(run_any);

std::optional<Signature> find_kernel(std::string_view name) {
  for (const Signature& signature : signatures) {
    if (signature.name == name) return signature;
  }
  return std::nullopt;
}

double run(Kernel kernel, const Operands& operands) { return HWY_DYNAMIC_DISPATCH(run_any)(kernel, operands); }

}  // namespace pccl::diloco
#endif
