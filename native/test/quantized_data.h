// What tests quantize, and how far off each format may be then.
#pragma once

#include <cstddef>
#include <cstdint>
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

// Of a block's values.
struct Extent {
  double min = 0;
  double max = 0;
};
std::vector<Extent> extents_of(const std::vector<float>& values, std::uint32_t block);

// How far the decoded element may be from `value`, one of such a block: docs/quantization.md.
double error_bound(const Quantization& quantization, const Extent& block, float value);

}  // namespace pccl::test
