// What tests quantize, and how far off each format may be then.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "pccl/quantization.h"

namespace pccl::test {

struct Data {
  std::string name;
  std::function<std::vector<float>(std::size_t count, unsigned seed)> make;
};

// Gaussian, heavy-tailed, all negative, constant, tiny (some subnormal) and huge values, sums of which still are finite.
const std::vector<Data>& all_data();
const Data& find_data(const std::string& name);

// How far the decoded element may be from `value`, one of a block: docs/quantization.md.
double error_bound(const Quantization& quantization, const std::vector<float>& block, float value);

}  // namespace pccl::test
