// Quantized reductions between engines: the same bits on all members, the errors that docs/quantization.md promises,
// and the ways in which they fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/quantization.h"
#include "cluster.h"
#include "quantize/layout.h"

namespace pccl::test {
namespace {

using Arrays = std::vector<std::vector<float>>;

struct Setting {
  Quantization quantization;
  ReduceOp op = ReduceOp::sum;
  bool in_place = true;
  std::uint64_t tag = 0;
};

CollectiveCall all_reduce(std::vector<float>& send, std::vector<float>& recv, const Setting& setting) {
  return {.send = send.data(),
          .send_count = send.size(),
          .recv = setting.in_place ? send.data() : recv.data(),
          .recv_count = send.size(),
          .op = setting.op,
          .tag = setting.tag,
          .quantization = setting.quantization};
}

// What every member has in the end, which is the same.
std::vector<float> reduced(Cluster& cluster, Arrays inputs, const Setting& setting) {
  Arrays outputs(inputs.size(), std::vector<float>(inputs[0].size()));
  const Arrays before = inputs;
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < inputs.size(); ++rank) {
    ops.push_back(cluster[rank].start(all_reduce(inputs[rank], outputs[rank], setting)));
  }
  for (std::size_t rank = 0; rank < inputs.size(); ++rank) {
    const OpResult result = ops[rank].second.get();
    EXPECT_FALSE(result.error) << result.error->message;
    if (setting.in_place) std::swap(outputs[rank], inputs[rank]);
    else EXPECT_EQ(std::memcmp(inputs[rank].data(), before[rank].data(), 4 * before[rank].size()), 0);
    EXPECT_EQ(std::memcmp(outputs[rank].data(), outputs[0].data(), 4 * outputs[0].size()), 0) << "rank " << rank;
  }
  return outputs[0];
}

Arrays gaussian(std::size_t ranks, std::size_t count) {
  Arrays inputs(ranks, std::vector<float>(count));
  std::mt19937 random(7);
  for (auto& input : inputs) {
    for (float& value : input) value = std::normal_distribution<float>()(random);
  }
  return inputs;
}

TEST(QuantizedReduce, SumsWithinItsError) {
  Cluster cluster(3);
  const Arrays inputs = gaussian(3, 600'001);
  const std::vector<float> sum = reduced(cluster, inputs, {.quantization = {.format = QuantizedFormat::u8}});
  double worst = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const double expected = static_cast<double>(inputs[0][i]) + inputs[1][i] + inputs[2][i];
    worst = std::max(worst, std::fabs(sum[i] - expected));
  }
  EXPECT_LT(worst, 0.1);
  EXPECT_GT(worst, 0.001);
}

}  // namespace
}  // namespace pccl::test
