// Arrays of numbers for and from the pure parts of expert parallelism: routers, plans and steps.
#pragma once

#include <napi.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "node/buffers.h"
#include "node/errors.h"

namespace pccl::node {

// A Float32Array's.
inline std::span<const float> read_floats(Napi::Value value, const std::string& what) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype != DType::f32) throw_not(value, what, "a Float32Array");
  return {static_cast<const float*>(tensor.data), tensor.count};
}

// An Int32Array's, none of them negative.
inline std::vector<std::uint32_t> read_indices(Napi::Value value, const std::string& what) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype != DType::i32) throw_not(value, what, "an Int32Array");
  const std::span indices(static_cast<const std::int32_t*>(tensor.data), tensor.count);
  if (std::any_of(indices.begin(), indices.end(), [](std::int32_t index) { return index < 0; })) {
    throw_invalid(value.Env(), what + " must hold integers of 0 or more.");
  }
  return {indices.begin(), indices.end()};
}

// Integers of 0 or more that a T holds, in a Float64Array.
template <typename T>
std::vector<T> read_numbers(Napi::Value value, const std::string& what) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype != DType::f64) throw_not(value, what, "a Float64Array");
  constexpr double max = sizeof(T) == 8 ? 9007199254740991.0 : 4294967295.0;
  std::vector<T> numbers;
  numbers.reserve(tensor.count);
  for (const double number : std::span(static_cast<const double*>(tensor.data), tensor.count)) {
    if (!(number >= 0 && number <= max && std::trunc(number) == number)) {
      throw_invalid(value.Env(), what + " must hold integers of 0 or more.");
    }
    numbers.push_back(static_cast<T>(number));
  }
  return numbers;
}

template <typename Array, typename T>
Array typed_array(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

inline Napi::Array numbers_array(Napi::Env env, const std::vector<std::uint32_t>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (std::uint32_t i = 0; i < values.size(); ++i) array.Set(i, Napi::Number::New(env, values[i]));
  return array;
}

}  // namespace pccl::node
