// Probes between engines: what they measure, and that each of them ends. Then the rule by which a rate has settled.
#include <gtest/gtest.h>

#include "cluster.h"
#include "fake_peer.h"
#include "probe/rate_meter.h"
#include "transport/socket.h"

namespace pccl::test {
namespace {

using namespace std::chrono_literals;

TEST(Probe, MeasuresEitherDirectionAndTheRoundTrip) {
  Cluster cluster(2, {2, 2});
  for (const auto direction : {ProbeDirection::send, ProbeDirection::receive}) {
    const auto result = cluster[0].probe(7, cluster[1].member(), direction).get();
    EXPECT_EQ(result.error, "");
    EXPECT_GT(result.bytes_per_second, 1e6);
    EXPECT_GT(result.round_trip_seconds, 0);
    EXPECT_LT(result.round_trip_seconds, 1);
    EXPECT_GT(result.bytes, 100'000u);
    EXPECT_GT(result.seconds, 0);
  }
  // Nothing of it is left that another one, or an op, would find.
  EXPECT_EQ(cluster[1].probe(7, cluster[0].member()).get().error, "");
}

TEST(Probe, GoesThroughARelay) {
  Cluster cluster(3, {}, [](View& view) {
    if (view.self == 3) view.relays = {{1, 2}};
  });
  Member target = cluster[2].member();
  target.id = 2;
  target.via = 3;
  const auto result = cluster[0].probe(1, target).get();
  EXPECT_EQ(result.error, "");
  EXPECT_GT(result.bytes_per_second, 0);
}

TEST(Probe, SaysWhyItCouldNotMeasure) {
  Cluster cluster(2);
  std::uint16_t closed_port = 0;
  {
    const UniqueFd listener = listen_tcp("127.0.0.1", 0);
    closed_port = local_port(listener.get());
  }
  const auto refused = cluster[0].probe(1, {2, "127.0.0.1", closed_port}).get();
  EXPECT_NE(refused.error.find("peer 2"), std::string::npos);
  EXPECT_NE(refused.error.find("connect"), std::string::npos) << refused.error;
  // One that is there, and is another one than was meant.
  const auto other = cluster[0].probe(2, {3, "127.0.0.1", cluster[1].engine->port()}).get();
  EXPECT_NE(other.error.find("turned away"), std::string::npos) << other.error;
}

TEST(Probe, RefusesWhatCanNotBe) {
  Cluster cluster(2);
  EXPECT_THROW(cluster[0].engine->probe(1, {2, "", 0}, ProbeDirection::send), EngineError);
  EXPECT_THROW(cluster[0].engine->probe(1, cluster[0].member(), ProbeDirection::send), EngineError);
  cluster[0].engine->probe(1, cluster[1].member(), ProbeDirection::send);
  EXPECT_THROW(cluster[0].engine->probe(1, cluster[1].member(), ProbeDirection::send), EngineError);
}

// Either end may close at any time: the other one hears of it, and nothing waits.
TEST(Probe, EndsWithEitherEngine) {
  Cluster cluster(3);
  const auto ended = cluster[0].probe(1, cluster[1].member());
  cluster.kill(1);
  ended.get();
  cluster[0].engine->probe(2, cluster[1].member(), ProbeDirection::send);
  cluster.kill(0);
}

TEST(RateMeter, WaitsUntilTheRateHasSettled) {
  RateMeter meter;
  RateMeter::Time time{};
  std::uint64_t bytes = 0;
  const auto go = [&](int samples, std::uint64_t per_sample) {
    for (int i = 0; i < samples; ++i) meter.note(time += 20ms, bytes += per_sample, 100ms);
  };
  EXPECT_EQ(meter.bytes_per_second(), 0);
  go(20, 0);
  EXPECT_FALSE(meter.settled());
  EXPECT_EQ(meter.bytes_per_second(), 0);
  for (std::uint64_t rate = 1000; rate < 1'000'000; rate *= 2) {
    go(5, rate);
    EXPECT_FALSE(meter.settled()) << rate;
  }
  // Losses: it comes back.
  go(3, 2'000'000);
  go(10, 300'000);
  EXPECT_FALSE(meter.settled());
  go(10, 2'000'000);
  EXPECT_TRUE(meter.settled());
  EXPECT_NEAR(meter.bytes_per_second(), 100e6, 5e6);
  const double settled = meter.bytes_per_second();
  go(10, 1000);
  EXPECT_EQ(meter.bytes_per_second(), settled);
}

TEST(RateMeter, TakesTheLaterPartOfWhatNeverSettles) {
  RateMeter meter;
  RateMeter::Time time{};
  std::uint64_t bytes = 0;
  meter.note(time, bytes, 100ms);
  // Slow for two fifths, then a burst in every twelfth sample, so that two windows of five never agree.
  for (std::uint64_t i = 1; i <= 100; ++i) {
    bytes += i <= 40 ? i * i : i % 12 == 0 ? 1'800'000 : 0;
    meter.note(time += 20ms, bytes, 100ms);
  }
  EXPECT_FALSE(meter.settled());
  EXPECT_NEAR(meter.bytes_per_second(), 1'800'000 / 0.24, 1e6);
}

}  // namespace
}  // namespace pccl::test
