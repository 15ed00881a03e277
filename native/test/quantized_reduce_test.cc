// Quantized reductions between engines: the same bits on all members, the errors that docs/quantization.md promises,
// and the ways in which they fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/quantization.h"
#include "cluster.h"
#include "engine/call_checks.h"
#include "fake_peer.h"
#include "quantize/layout.h"
#include "quantized_data.h"

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

Arrays inputs_of(const Data& data, std::size_t ranks, std::size_t count) {
  Arrays inputs;
  for (std::size_t rank = 0; rank < ranks; ++rank) inputs.push_back(data.make(count, static_cast<unsigned>(rank + 1)));
  return inputs;
}

// Each part is rounded once, and the sum, which may have grown by as much, once. docs/quantization.md has the rule.
std::vector<double> sum_bounds(const Quantization& quantization, const Arrays& inputs, const std::vector<float>& sum) {
  std::vector<double> bounds(sum.size());
  const auto add = [&](const std::vector<float>& values, double factor) {
    const std::vector<Extent> blocks = extents_of(values, quantization.block);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double magnitude = std::fabs(static_cast<double>(values[i]));
      bounds[i] += factor * error_bound(quantization, blocks[i / quantization.block], values[i]) + magnitude * 0x1p-22;
    }
  };
  for (const auto& input : inputs) add(input, 1.3);
  add(sum, 1);
  return bounds;
}

const std::vector<Quantization> quantizations = {
    {.format = QuantizedFormat::u8},
    {.format = QuantizedFormat::i8, .scheme = QuantizationScheme::zero_point, .block = 1024},
    {.format = QuantizedFormat::i4, .block = 64},
    {.format = QuantizedFormat::i4, .rounding = QuantizationRounding::stochastic, .seed = 3},
    {.format = QuantizedFormat::fp8},
    {.format = QuantizedFormat::bf16},
    {.format = QuantizedFormat::f16, .rounding = QuantizationRounding::stochastic},
};

class QuantizedSums : public testing::TestWithParam<std::size_t> {};

TEST_P(QuantizedSums, AreWithinTheirBound) {
  Cluster cluster(GetParam());
  for (const Data& data : all_data()) {
    const Arrays inputs = inputs_of(data, GetParam(), 10'001);
    for (const Quantization& quantization : quantizations) {
      const bool out_of_range = quantization.format == QuantizedFormat::f16 && (data.name == "huge" || data.name == "far from zero");
      if (out_of_range) continue;
      for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg}) {
        SCOPED_TRACE(std::string(quantized_format_name(quantization.format)) + " of " + data.name);
        std::vector<float> exact(inputs[0].size());
        for (std::size_t i = 0; i < exact.size(); ++i) {
          double sum = 0;
          for (const auto& input : inputs) sum += static_cast<double>(input[i]);
          exact[i] = static_cast<float>(sum);
        }
        const double divisor = op == ReduceOp::avg ? static_cast<double>(GetParam()) : 1;
        const std::vector<float> got = reduced(cluster, inputs, {quantization, op, op == ReduceOp::sum});
        const std::vector<double> bounds = sum_bounds(quantization, inputs, exact);
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double error = std::fabs(static_cast<double>(got[i]) * divisor - static_cast<double>(exact[i]));
          ASSERT_LE(error, bounds[i] + divisor * 0x1p-147) << exact[i] << " at " << i;
        }
      }
    }
  }
}

TEST_P(QuantizedSums, OfAnyLength) {
  Cluster cluster(GetParam(), std::vector<std::uint32_t>(GetParam(), 3));
  for (const std::size_t count : {1u, 2u, 255u, 257u, 4097u, 131'072u, 600'001u}) {
    for (const QuantizedFormat format : {QuantizedFormat::u8, QuantizedFormat::i4}) {
      const Quantization quantization{.format = format};
      const Arrays inputs = inputs_of(find_data("gaussian"), GetParam(), count);
      const std::vector<float> got = reduced(cluster, inputs, {.quantization = quantization, .in_place = count % 2 == 0});
      for (std::size_t i = 0; i < count; ++i) {
        double sum = 0;
        for (const auto& input : inputs) sum += static_cast<double>(input[i]);
        ASSERT_NEAR(got[i], sum, format == QuantizedFormat::u8 ? 0.2 : 3.0) << i << " of " << count;
      }
    }
  }
}

// A quantized value is between the same two codes as any that it lies between, so extremes are off as one member's
// values are, and once more.
TEST_P(QuantizedSums, ExtremesToo) {
  Cluster cluster(GetParam());
  const Arrays inputs = inputs_of(find_data("gaussian"), GetParam(), 3'000);
  for (const ReduceOp op : {ReduceOp::max, ReduceOp::min}) {
    const auto got = reduced(cluster, inputs, {{.format = QuantizedFormat::u8}, op});
    for (std::size_t i = 0; i < got.size(); ++i) {
      float expected = inputs[0][i];
      for (const auto& input : inputs) expected = op == ReduceOp::max ? std::max(expected, input[i]) : std::min(expected, input[i]);
      ASSERT_NEAR(got[i], expected, 0.05);
    }
  }
}

TEST_P(QuantizedSums, ScatteredOnesAreRoundedOnTheWayOnly) {
  const std::size_t ranks = GetParam();
  Cluster cluster(ranks);
  constexpr std::size_t block = 140'001;
  Arrays inputs = inputs_of(find_data("gaussian"), ranks, ranks * block);
  Arrays outputs(ranks, std::vector<float>(block));
  const Quantization quantization{.format = QuantizedFormat::u8};
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    ops.push_back(cluster[rank].start({.kind = Collective::reduce_scatter,
                                       .send = inputs[rank].data(),
                                       .send_count = inputs[rank].size(),
                                       .recv = outputs[rank].data(),
                                       .recv_count = block,
                                       .quantization = quantization}));
  }
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const OpResult result = ops[rank].second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    double worst = 0;
    for (std::size_t i = 0; i < block; ++i) {
      double sum = 0;
      for (const auto& input : inputs) sum += static_cast<double>(input[rank * block + i]);
      worst = std::max(worst, std::fabs(static_cast<double>(outputs[rank][i]) - sum));
    }
    EXPECT_LE(worst, 0.02 * static_cast<double>(ranks - 1) + 1e-6);
    EXPECT_LE(static_cast<double>(result.tx_bytes), 0.265 * 4 * block * static_cast<double>(ranks - 1));
  }
}

INSTANTIATE_TEST_SUITE_P(Members, QuantizedSums, testing::Values(1, 2, 3, 5));

// However many connections there are, in place or not, and in another world of the same size.
TEST(QuantizedReduce, TheSameBitsEachTime) {
  const Arrays inputs = inputs_of(find_data("heavy-tailed"), 3, 500'000);
  for (const Quantization& quantization : quantizations) {
    std::vector<float> first;
    for (const std::uint32_t lanes : {1u, 4u}) {
      Cluster cluster(3, {lanes, lanes, lanes});
      for (const bool in_place : {false, true}) {
        const auto got = reduced(cluster, inputs, {.quantization = quantization, .in_place = in_place});
        if (first.empty()) first = got;
        EXPECT_EQ(std::memcmp(first.data(), got.data(), 4 * got.size()), 0) << quantized_format_name(quantization.format);
      }
    }
  }
}

TEST(QuantizedReduce, WireBytes) {
  Cluster cluster(3);
  constexpr std::size_t count = 1 << 20;
  const auto share = [&](QuantizedFormat format) {
    Arrays inputs = inputs_of(find_data("gaussian"), 3, count);
    const Setting setting{.quantization = {.format = format}};
    std::vector<PendingOp> ops;
    for (auto& input : inputs) ops.push_back(cluster[ops.size()].start(all_reduce(input, input, setting)));
    double bytes = 0;
    for (const auto& [id, result] : ops) {
      EXPECT_EQ(result.get().algorithm, Algorithm::quantized);
      EXPECT_FALSE(result.get().error);
      bytes += static_cast<double>(result.get().tx_bytes);
    }
    // A ring of f32 sends 2(N-1)/N arrays per member, without headers.
    return bytes / 3 / (4.0 * count * 4 / 3);
  };
  EXPECT_LE(share(QuantizedFormat::u8), 0.265);
  EXPECT_LE(share(QuantizedFormat::fp8), 0.265);
  EXPECT_LE(share(QuantizedFormat::i4), 0.14);
  EXPECT_LE(share(QuantizedFormat::bf16), 0.501);
}

// One member's NaN, anywhere: every member hears whose it is, and has its input.
TEST(QuantizedReduce, NonFiniteInputIsAnErrorOnAll) {
  for (const std::size_t ranks : {1u, 3u}) {
    Cluster cluster(ranks);
    constexpr std::size_t count = 900'001;
    for (const std::size_t at : {std::size_t{0}, count / 2, count - 1}) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        Arrays inputs = inputs_of(find_data("gaussian"), ranks, count);
        inputs[ranks - 1][at] = bad;
        const Arrays before = inputs;
        std::vector<PendingOp> ops;
        for (auto& input : inputs) {
          ops.push_back(cluster[ops.size()].start(all_reduce(input, input, {.quantization = {.format = QuantizedFormat::u8}})));
        }
        for (std::size_t rank = 0; rank < ranks; ++rank) {
          const auto error = ops[rank].second.get().error;
          ASSERT_TRUE(error);
          EXPECT_EQ(error->code, ErrorCode::non_finite_input) << error->message;
          EXPECT_EQ(error->peer, cluster[ranks - 1].id);
          EXPECT_EQ(std::memcmp(inputs[rank].data(), before[rank].data(), 4 * count), 0);
        }
      }
    }
    const Arrays good = inputs_of(find_data("gaussian"), ranks, 100);
    reduced(cluster, good, {.quantization = {.format = QuantizedFormat::u8}});
  }
}

TEST(QuantizedReduce, NonFiniteInputPassesWhereItMay) {
  Cluster cluster(3);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (Quantization quantization : quantizations) {
    quantization.pass_non_finite = true;
    Arrays inputs = inputs_of(find_data("gaussian"), 3, 5'000);
    inputs[0][7] = std::numeric_limits<float>::quiet_NaN();
    inputs[1][800] = infinity;
    inputs[2][1600] = -infinity;
    inputs[0][2400] = infinity;
    inputs[1][2400] = -infinity;
    const auto got = reduced(cluster, inputs, {.quantization = quantization});
    for (std::size_t i = 0; i < got.size(); ++i) {
      const float expected = inputs[0][i] + inputs[1][i] + inputs[2][i];
      if (std::isnan(expected)) ASSERT_TRUE(std::isnan(got[i])) << i;
      else if (std::isinf(expected)) ASSERT_EQ(got[i], expected) << i;
      else ASSERT_NEAR(got[i], expected, 3.5) << i;
    }
  }
}

// Sums that f32 has no room for are infinite, as they would be without quantization.
TEST(QuantizedReduce, SumsMayOverflow) {
  Cluster cluster(2);
  Arrays inputs(2, std::vector<float>(600, 1));
  inputs[0][5] = inputs[1][5] = 3e38f;
  const auto got = reduced(cluster, inputs, {.quantization = {.format = QuantizedFormat::u8}});
  EXPECT_EQ(got[5], std::numeric_limits<float>::infinity());
  EXPECT_EQ(got[300], 2);
}

TEST(QuantizedReduce, SeedsMayDiffer) {
  Cluster cluster(2);
  Arrays inputs = inputs_of(find_data("gaussian"), 2, 1000);
  std::vector<PendingOp> ops;
  for (auto& input : inputs) {
    const Quantization quantization{
        .format = QuantizedFormat::u8, .rounding = QuantizationRounding::stochastic, .seed = ops.size()};
    ops.push_back(cluster[ops.size()].start(all_reduce(input, input, {.quantization = quantization})));
  }
  for (const auto& [id, result] : ops) EXPECT_FALSE(result.get().error);
  EXPECT_EQ(inputs[0], inputs[1]);
}

TEST(QuantizedReduce, RefusesWhatItCannot) {
  Cluster cluster(2);
  std::vector<float> data(64);
  const auto said = [&](const std::function<void(CollectiveCall&)>& change) {
    CollectiveCall call = all_reduce(data, data, {.quantization = {.format = QuantizedFormat::u8}});
    change(call);
    try {
      cluster[0].start(call);
    } catch (const EngineError& error) {
      EXPECT_EQ(error.error().code, ErrorCode::invalid_argument);
      return error.error().message;
    }
    return std::string("nothing");
  };
  using Call = CollectiveCall;
  EXPECT_NE(said([](Call& call) { call.dtype = DType::i32; }).find("only f32"), std::string::npos);
  EXPECT_NE(said([](Call& call) { call.op = ReduceOp::prod; }).find("products"), std::string::npos);
  EXPECT_NE(said([](Call& call) { call.kind = Collective::broadcast; }).find("only all_reduce"), std::string::npos);
  EXPECT_NE(said([](Call& call) { call.quantization.block = 100; }).find("power of two"), std::string::npos);
  EXPECT_NE(said([](Call& call) { call.quantization.format = static_cast<QuantizedFormat>(9); }).find("unknown"),
            std::string::npos);
  EXPECT_NE(said([](Call& call) {
              call.quantization = {.format = QuantizedFormat::bf16, .scheme = QuantizationScheme::zero_point};
            }).find("scheme"),
            std::string::npos);
  InstalledView view;
  view.group_size = 17;
  const Call call = all_reduce(data, data, {.quantization = {.format = QuantizedFormat::u8}});
  EXPECT_THROW(check_call_in(call, view), EngineError);
}

// The other member speaks the protocol, but sends what no correct one does.
class WithBadPeer : public testing::Test {
 protected:
  static constexpr std::uint64_t count = 2048;
  static constexpr OpKey key{7, 0};
  static constexpr Quantization u8{.format = QuantizedFormat::u8};

  WithBadPeer() {
    engine_->set_control({
        .prepared = [this](Epoch, const std::vector<LinkFailure>& failures) { prepared_.set(failures); },
        .link_lost = [this](Epoch, PeerId, const std::string& reason) { lost_.set(reason); },
    });
    View view{.epoch = 1,
              .view_epoch = 1,
              .self = 1,
              .key = test_key,
              .ring = {{1, "127.0.0.1", engine_->port()}, fake_.member()},
              .world_size = 2,
              .silence_ms = 2000};
    engine_->prepare(view, 30'000);
    fake_.accept_link();
    EXPECT_TRUE(prepared_.get().empty());
    engine_->install(1, {});
    engine_->start(all_reduce(data_, data_, {.quantization = u8, .tag = 7}),
                   [this](OpId, const OpResult& result) { result_.set(result); });
    EXPECT_TRUE(std::holds_alternative<ReadyBody>(fake_.receive().body));
    fake_.send({1, key, ReadyBody{{.count = count, .quantization = u8}}});
    EXPECT_EQ(std::get<DataBody>(fake_.receive().body).step, 0u);
  }

  const std::vector<float> before_ = find_data("gaussian").make(count, 1);
  std::vector<float> data_ = before_;
  FakePeer fake_{2};
  Awaited<std::vector<LinkFailure>> prepared_;
  Awaited<std::string> lost_;
  Awaited<OpResult> result_;
  // Of a slice: four blocks.
  std::vector<std::uint8_t> part_ = std::vector<std::uint8_t>(quantized_bytes(u8, count / 2));
  std::shared_ptr<Engine> engine_ = Engine::create({.connections_per_peer = 1, .transport = TransportMode::tcp});  // goes first: it uses the rest
};

TEST_F(WithBadPeer, BlocksWithoutSenseEndTheOp) {
  std::fill(part_.begin() + 2 * 264, part_.end(), std::uint8_t{0xff});
  fake_.send_data(1, key, {0, 0, static_cast<std::uint32_t>(part_.size())}, part_.data());
  const auto error = result_.get().error;
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::internal);
  EXPECT_NE(error->message.find("rank 1"), std::string::npos) << error->message;
  EXPECT_EQ(data_, before_);
}

TEST_F(WithBadPeer, SumsWithoutSenseEndTheOpAndRestoreTheInput) {
  fake_.send_data(1, key, {0, 0, static_cast<std::uint32_t>(part_.size())}, part_.data());
  EXPECT_EQ(std::get<DataBody>(fake_.receive().body).step, 1u);
  std::fill(part_.begin(), part_.end(), std::uint8_t{0xff});
  fake_.send_data(1, key, {1, 0, static_cast<std::uint32_t>(part_.size())}, part_.data());
  const auto error = result_.get().error;
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::internal);
  EXPECT_EQ(data_, before_);
}

TEST_F(WithBadPeer, AnyDataEndsOrChangesTheResultAndNothingElse) {
  std::mt19937 random(3);
  for (int i = 0; i < 200 && lost_.count() == 0 && result_.count() == 0; ++i) {
    DataBody body{static_cast<std::uint32_t>(random() % 3), random() % 2, static_cast<std::uint32_t>(part_.size())};
    if (random() % 8 == 0) body.bytes = 1 + static_cast<std::uint32_t>(random() % part_.size());
    for (std::uint8_t& byte : part_) byte = static_cast<std::uint8_t>(random());
    try {
      fake_.send_data(1, key, body, part_.data());
    } catch (const std::exception&) {
      break;  // it has hung up
    }
  }
  engine_->close();
  const OpResult result = result_.get();
  if (!result.error) return;
  EXPECT_EQ(data_, before_) << result.error->message;
}

}  // namespace
}  // namespace pccl::test
