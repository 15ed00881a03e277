// All-reduces that go well: every ring size, every kind of element and reduction, odd lengths, many at once.
// The expected value is computed in f64 (exactly, for the small whole numbers that the inputs are).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "base/dtype.h"
#include "cluster.h"

namespace pccl::test {
namespace {

double element(std::size_t rank, std::uint64_t i) {
  return static_cast<double>((rank * 7919 + i * 31 + 17) % 2001) - 1000;
}

double expected(ReduceOp op, std::size_t ranks, std::uint64_t i) {
  double value = element(0, i);
  for (std::size_t rank = 1; rank < ranks; ++rank) {
    const double other = element(rank, i);
    if (op == ReduceOp::max)
      value = std::max(value, other);
    else if (op == ReduceOp::min)
      value = std::min(value, other);
    else if (op == ReduceOp::prod)
      value *= other;
    else
      value += other;
  }
  return op == ReduceOp::avg ? value / static_cast<double>(ranks) : value;
}

template <typename T>
constexpr DType dtype_of() {
  if (std::is_same_v<T, float>) return DType::f32;
  if (std::is_same_v<T, double>) return DType::f64;
  if (std::is_same_v<T, std::int16_t>) return DType::i16;
  return std::is_same_v<T, std::int64_t> ? DType::i64 : DType::i32;
}

template <typename T>
void run_one(Cluster& cluster, std::uint64_t count, ReduceOp op, bool in_place, std::uint64_t tag) {
  SCOPED_TRACE(testing::Message() << cluster.size() << " peers, " << count << " " << dtype_name(dtype_of<T>()) << " "
                                  << reduce_op_name(op) << (in_place ? " in place" : ""));
  std::vector<std::vector<T>> send(cluster.size());
  std::vector<std::vector<T>> recv(cluster.size());
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    send[rank].resize(count);
    for (std::uint64_t i = 0; i < count; ++i) send[rank][i] = static_cast<T>(element(rank, i));
    if (!in_place) recv[rank].resize(count);
    T* const into = in_place ? send[rank].data() : recv[rank].data();
    ops.push_back(cluster[rank].all_reduce({send[rank].data(), into, count, dtype_of<T>(), op, tag}));
  }
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    const OpResult result = ops[rank].second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    EXPECT_EQ(result.world_size, cluster.size());
    const std::vector<T>& got = in_place ? send[rank] : recv[rank];
    for (std::uint64_t i = 0; i < count; ++i) {
      ASSERT_EQ(got[i], static_cast<T>(expected(op, cluster.size(), i))) << "rank " << rank << " element " << i;
    }
    if (in_place) continue;
    for (std::uint64_t i = 0; i < count; ++i) ASSERT_EQ(send[rank][i], static_cast<T>(element(rank, i)));
  }
}

class AllReduceRing : public testing::TestWithParam<std::size_t> {};

TEST_P(AllReduceRing, AnyLength) {
  Cluster cluster(GetParam());
  for (const std::uint64_t count : {1, 2, 3, 16, 17, 127, 1000, 4096, 65536, 200'001, 600'000}) {
    run_one<float>(cluster, count, ReduceOp::sum, count % 2 == 0, count);
  }
}

TEST_P(AllReduceRing, AnyElementAndReduction) {
  Cluster cluster(GetParam());
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::max, ReduceOp::min}) {
    for (const bool in_place : {false, true}) {
      run_one<float>(cluster, 1001, op, in_place, 1);
      run_one<double>(cluster, 70'001, op, in_place, 1);
      run_one<std::int16_t>(cluster, 300'001, op, in_place, 1);
      run_one<std::int32_t>(cluster, 1001, op, in_place, 1);
      run_one<std::int64_t>(cluster, 1001, op, in_place, 1);
    }
  }
  // Few enough factors for their product to be exact.
  if (GetParam() <= 5) run_one<double>(cluster, 1001, ReduceOp::prod, true, 1);
}

// Of elements of one byte a chunk holds the most. What wraps around does so in any order.
TEST_P(AllReduceRing, BytesWrapAround) {
  Cluster cluster(GetParam());
  constexpr std::uint64_t count = 1'200'003;
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::prod}) {
    std::vector<std::vector<std::uint8_t>> data(cluster.size(), std::vector<std::uint8_t>(count));
    std::vector<std::uint8_t> want(count, op == ReduceOp::sum ? 0 : 1);
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
      for (std::uint64_t i = 0; i < count; ++i) {
        data[rank][i] = static_cast<std::uint8_t>(rank * 101 + i * 7 + 3);
        want[i] = static_cast<std::uint8_t>(op == ReduceOp::sum ? want[i] + data[rank][i] : want[i] * data[rank][i]);
      }
      ops.push_back(cluster[rank].all_reduce({data[rank].data(), data[rank].data(), count, DType::u8, op, 0}));
    }
    for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
      ASSERT_FALSE(ops[rank].second.get().error);
      EXPECT_TRUE(data[rank] == want) << reduce_op_name(op) << ", rank " << rank;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Peers, AllReduceRing, testing::Values(1, 2, 3, 4, 5, 8));

// Sums of fractions depend on the order in which they are made, so peers only agree if one of them makes each.
TEST(AllReduce, AllPeersHoldTheSameBits) {
  Cluster cluster(4);
  constexpr std::uint64_t count = 300'000;
  std::vector<std::vector<float>> data(cluster.size(), std::vector<float>(count));
  std::mt19937 random(1);
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    for (float& value : data[rank]) value = std::normal_distribution<float>(0, 1e3f)(random);
    ops.push_back(
        cluster[rank].all_reduce({data[rank].data(), data[rank].data(), count, DType::f32, ReduceOp::avg, 0}));
  }
  for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error);
  for (std::size_t rank = 1; rank < cluster.size(); ++rank) {
    EXPECT_EQ(std::memcmp(data[0].data(), data[rank].data(), count * sizeof(float)), 0);
  }
}

// Each peer posts sixteen ops of different sizes from a thread of its own, in an order of its own, several times.
TEST(AllReduce, SixteenAtOnceInAnyOrder) {
  Cluster cluster(3);
  constexpr std::size_t ops = 16;
  constexpr int repeats = 5;
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) {
    threads.emplace_back([&cluster, rank] {
      std::mt19937 random(static_cast<unsigned>(rank));
      std::vector<std::vector<double>> data(ops);
      for (int repeat = 0; repeat < repeats; ++repeat) {
        std::vector<std::uint64_t> order(ops);
        for (std::size_t i = 0; i < ops; ++i) order[i] = i;
        std::shuffle(order.begin(), order.end(), random);
        std::vector<PendingOp> pending;
        for (const std::uint64_t tag : order) {
          const std::uint64_t count = 1 + tag * tag * 700;
          data[tag].resize(count);
          for (std::uint64_t i = 0; i < count; ++i) data[tag][i] = element(rank, i + tag);
          pending.push_back(
              cluster[rank].all_reduce({data[tag].data(), data[tag].data(), count, DType::f64, ReduceOp::sum, tag}));
        }
        for (const auto& [id, result] : pending) ASSERT_FALSE(result.get().error);
        for (std::uint64_t tag = 0; tag < ops; ++tag) {
          for (std::uint64_t i = 0; i < data[tag].size(); ++i) {
            ASSERT_EQ(data[tag][i], expected(ReduceOp::sum, cluster.size(), i + tag));
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A peer that comes late holds the others up, and nothing is lost.
TEST(AllReduce, EarlyPeersWaitForTheLastOne) {
  Cluster cluster(3);
  std::vector<float> data(3, 1.5f);
  const auto first = cluster[0].all_reduce({&data[0], &data[0], 1, DType::f32, ReduceOp::sum, 9});
  const auto second = cluster[1].all_reduce({&data[1], &data[1], 1, DType::f32, ReduceOp::sum, 9});
  std::vector<float> other(3, 2);
  run_one<float>(cluster, 10, ReduceOp::sum, true, 10);
  EXPECT_EQ(first.second.count() + second.second.count(), 0u);
  const auto third = cluster[2].all_reduce({&data[2], &data[2], 1, DType::f32, ReduceOp::sum, 9});
  for (const auto& op : {first, second, third}) EXPECT_FALSE(op.second.get().error);
  EXPECT_EQ(data, std::vector<float>(3, 4.5f));
}

}  // namespace
}  // namespace pccl::test
