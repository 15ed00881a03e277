// The arithmetic of an outer step, element by element over float32 arrays of one length. The same bits on every CPU:
// each operation is rounded on its own, to nearest, in the order that is written here, and sums have one fixed order.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace pccl::diloco {

inline constexpr std::size_t arrays_max = 7;
inline constexpr std::size_t factors_max = 9;

enum class Kernel {
  // into = a - b, and the sum of its squares. Arrays: a, b, into.
  difference,
  // into = from. Arrays: from, into.
  copy,
  // x = factor x. Arrays: x.
  scale,
  // y = y + factor x. Arrays: x, y.
  add_scaled,
  // Plain SGD on g = scale gradient: theta' = theta - eta g. Arrays: gradient, theta, theta'. Factors: scale, eta.
  sgd,
  // SGD with Nesterov momentum in PyTorch's form: m' = mu m + g, theta' = theta - eta (g + mu m').
  // Arrays: gradient, theta, m, theta', m'. Factors: scale, eta, mu.
  nesterov,
  // Adam (Kingma and Ba, 2014): m' = b1 m + d1 g, v' = b2 v + d2 g g,
  // theta' = theta - eta (m' / c1) / (sqrt(v' / c2) + epsilon), with d = 1 - b and c = 1 - b^t of the caller.
  // Arrays: gradient, theta, m, v, theta', m', v'. Factors: scale, eta, b1, d1, b2, d2, epsilon, c1, c2.
  adam,
  // local = alpha local + beta theta. Arrays: theta, local. Factors: alpha, beta.
  mix,
  // local = theta + (local - start), start = theta: a model takes its own progress along when its base moves.
  // Arrays: theta, start, local.
  carry,
};

struct Signature {
  Kernel kernel;
  std::string_view name;
  std::size_t arrays;
  std::size_t factors;
};

std::optional<Signature> find_kernel(std::string_view name);

struct Operands {
  std::array<float*, arrays_max> arrays{};
  std::array<float, factors_max> factors{};
  std::size_t count = 0;
};

// Arrays may be the same one (in place), but not overlap otherwise. Returns the sum that the kernel has, or 0.
double run(Kernel kernel, const Operands& operands);

}  // namespace pccl::diloco
