// Every collective, in groups of every size: each element of every result is compared with what the definition says.
// Groups of more than 16 members, which aren't all linked, have algorithms of their own.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "base/collectives.h"
#include "base/dtype.h"
#include "cluster.h"

namespace pccl::test {
namespace {

template <typename T>
constexpr DType dtype_of() {
  if (std::is_same_v<T, float>) return DType::f32;
  if (std::is_same_v<T, double>) return DType::f64;
  return std::is_same_v<T, std::uint8_t> ? DType::u8 : DType::i64;
}

// Of `from` for `to`, or for all. Small enough for sums of 17 to be exact.
template <typename T>
T element(std::size_t from, std::size_t to, std::uint64_t i) {
  return static_cast<T>((from * 31 + to * 7 + i * 13 + i / 1000) % 11);
}
template <typename T>
std::vector<T> block(std::size_t from, std::size_t to, std::uint64_t count) {
  std::vector<T> values(count);
  for (std::uint64_t i = 0; i < count; ++i) values[i] = element<T>(from, to, i);
  return values;
}
template <typename T>
void append(std::vector<T>& to, const std::vector<T>& values) {
  to.insert(to.end(), values.begin(), values.end());
}

// What each member has, and what it is to have afterwards.
template <typename T>
struct Side {
  std::vector<T> send, recv, want;
};

template <typename T>
class Run {
 public:
  Run(Cluster& cluster, Collective kind, std::uint64_t tag) : cluster_(cluster), kind_(kind), tag_(tag), sides_(size()) {}

  std::size_t size() const { return cluster_.size(); }
  Side<T>& operator[](std::size_t rank) { return sides_[rank]; }
  CollectiveCall call(std::size_t rank) {
    return {.kind = kind_,
            .send = sides_[rank].send.data(),
            .send_count = sides_[rank].send.size(),
            .recv = sides_[rank].recv.data(),
            .recv_count = sides_[rank].recv.size(),
            .dtype = dtype_of<T>(),
            .tag = tag_,
            .in_huge_pages = true};
  }
  void start(std::size_t rank, const CollectiveCall& call) { ops_.push_back({rank, cluster_[rank].start(call)}); }
  void expect_right() {
    for (const auto& [rank, op] : ops_) {
      const OpResult result = op.second.get();
      ASSERT_FALSE(result.error) << result.error->message;
      EXPECT_EQ(result.world_size, size());
      algorithm = result.algorithm;
      ASSERT_TRUE(sides_[rank].recv == sides_[rank].want)
          << traits(kind_).name << " of " << sides_[rank].want.size() << " " << dtype_name(dtype_of<T>()) << ", rank "
          << rank << " of " << size() << ", first difference at "
          << std::mismatch(sides_[rank].recv.begin(), sides_[rank].recv.end(), sides_[rank].want.begin()).first -
                 sides_[rank].recv.begin();
    }
  }

  Algorithm algorithm = Algorithm::alone;

 private:
  Cluster& cluster_;
  const Collective kind_;
  const std::uint64_t tag_;
  std::vector<Side<T>> sides_;
  std::vector<std::pair<std::size_t, PendingOp>> ops_;
};

template <typename T>
Algorithm reduce_scatter(Cluster& cluster, std::uint64_t count, ReduceOp op = ReduceOp::sum) {
  Run<T> run(cluster, Collective::reduce_scatter, 3);
  for (std::size_t rank = 0; rank < run.size(); ++rank) {
    for (std::size_t to = 0; to < run.size(); ++to) append(run[rank].send, block<T>(rank, to, count));
    run[rank].recv.assign(count, T(77));
    run[rank].want = block<T>(0, rank, count);
    for (std::size_t from = 1; from < run.size(); ++from) {
      for (std::uint64_t i = 0; i < count; ++i) {
        const T value = element<T>(from, rank, i);
        T& into = run[rank].want[i];
        into = op == ReduceOp::max ? std::max(into, value) : static_cast<T>(into + value);
      }
    }
    if (op == ReduceOp::avg) {
      for (T& value : run[rank].want) value = static_cast<T>(value / static_cast<T>(run.size()));
    }
  }
  for (std::size_t rank = 0; rank < run.size(); ++rank) {
    CollectiveCall call = run.call(rank);
    call.op = op;
    run.start(rank, call);
  }
  run.expect_right();
  return run.algorithm;
}

template <typename T>
Algorithm all_gather(Cluster& cluster, std::uint64_t count, bool in_place) {
  Run<T> run(cluster, Collective::all_gather, 3);
  std::vector<T> all;
  for (std::size_t rank = 0; rank < run.size(); ++rank) append(all, block<T>(rank, 0, count));
  for (std::size_t rank = 0; rank < run.size(); ++rank) {
    run[rank].send = block<T>(rank, 0, count);
    run[rank].recv.assign(all.size(), T(77));
    run[rank].want = all;
    CollectiveCall call = run.call(rank);
    if (in_place) {
      T* const own = run[rank].recv.data() + rank * count;
      std::copy(run[rank].send.begin(), run[rank].send.end(), own);
      call.send = own;
    }
    run.start(rank, call);
  }
  run.expect_right();
  return run.algorithm;
}

template <typename T>
Algorithm broadcast(Cluster& cluster, std::uint64_t count, std::size_t root) {
  Run<T> run(cluster, Collective::broadcast, 3);
  for (std::size_t rank = 0; rank < run.size(); ++rank) {
    run[rank].want = block<T>(root, 0, count);
    run[rank].recv = rank == root ? run[rank].want : std::vector<T>(count, T(77));
    CollectiveCall call = run.call(rank);
    call.peer = cluster[root].id;
    run.start(rank, call);
  }
  run.expect_right();
  return run.algorithm;
}

template <typename T>
void gather_and_scatter(Cluster& cluster, std::uint64_t count, std::size_t root) {
  for (const Collective kind : {Collective::gather, Collective::scatter}) {
    const bool gather = kind == Collective::gather;
    Run<T> run(cluster, kind, 3);
    std::vector<T> all;
    for (std::size_t rank = 0; rank < run.size(); ++rank) append(all, block<T>(rank, 0, count));
    for (std::size_t rank = 0; rank < run.size(); ++rank) {
      const std::vector<T> own = block<T>(rank, 0, count);
      if (gather) run[rank].send = own;
      if (!gather) run[rank].want = own;
      if (rank == root) (gather ? run[rank].want : run[rank].send) = all;
      run[rank].recv.assign(run[rank].want.size(), T(77));
    }
    for (std::size_t rank = 0; rank < run.size(); ++rank) {
      CollectiveCall call = run.call(rank);
      call.peer = cluster[root].id;
      run.start(rank, call);
    }
    run.expect_right();
  }
}

// `counts(from, to)`; null: equal blocks without counts.
template <typename T, typename F>
void all_to_all(Cluster& cluster, F counts, bool with_counts) {
  Run<T> run(cluster, Collective::all_to_all, 3);
  for (std::size_t rank = 0; rank < run.size(); ++rank) {
    std::vector<std::uint64_t> send_counts, recv_counts;
    for (std::size_t other = 0; other < run.size(); ++other) {
      send_counts.push_back(counts(rank, other));
      recv_counts.push_back(counts(other, rank));
      append(run[rank].send, block<T>(rank, other, send_counts.back()));
      append(run[rank].want, block<T>(other, rank, recv_counts.back()));
    }
    run[rank].recv.assign(run[rank].want.size(), T(77));
    CollectiveCall call = run.call(rank);
    if (with_counts) {
      call.send_counts = send_counts;
      call.recv_counts = recv_counts;
    }
    run.start(rank, call);
  }
  run.expect_right();
}

// 1 KiB, just above what goes with the `ready`, and several chunks with an odd end.
constexpr std::uint64_t chunk = 512 * 1024;

class CollectivesOf : public testing::TestWithParam<std::size_t> {
 protected:
  Cluster cluster_{GetParam()};
  bool alone() const { return GetParam() == 1; }
  bool linked() const { return GetParam() <= 16; }
  // What carries out what is too long to go with the `ready`; members of one host read each other's memory.
  Algorithm of_long(Algorithm over_links) const {
    if (alone()) return Algorithm::alone;
    return linked() && test_transport() == TransportMode::shm ? Algorithm::direct : over_links;
  }
};

TEST_P(CollectivesOf, ReduceScatter) {
  EXPECT_EQ(reduce_scatter<float>(cluster_, 3),
            alone() ? Algorithm::alone : linked() ? Algorithm::one_shot : Algorithm::ring);
  EXPECT_EQ(reduce_scatter<float>(cluster_, 40'001, ReduceOp::max),
            of_long(linked() ? Algorithm::pairwise : Algorithm::ring));
  reduce_scatter<std::int64_t>(cluster_, 1001, ReduceOp::avg);
  reduce_scatter<std::uint8_t>(cluster_, 2 * chunk + 5);
}

TEST_P(CollectivesOf, AllGather) {
  for (const bool in_place : {false, true}) {
    EXPECT_EQ(all_gather<float>(cluster_, 3, in_place),
              alone() ? Algorithm::alone : linked() ? Algorithm::pairwise : Algorithm::ring);
    all_gather<std::int64_t>(cluster_, 5001, in_place);
    EXPECT_EQ(all_gather<std::uint8_t>(cluster_, 2 * chunk + 5, in_place),
              of_long(Algorithm::ring));
  }
}

TEST_P(CollectivesOf, Broadcast) {
  for (const std::size_t root : {std::size_t{0}, cluster_.size() / 2, cluster_.size() - 1}) {
    EXPECT_EQ(broadcast<float>(cluster_, 3, root),
              alone() ? Algorithm::alone : linked() ? Algorithm::pairwise : Algorithm::chain);
    broadcast<double>(cluster_, 3001, root);
    EXPECT_EQ(broadcast<std::uint8_t>(cluster_, 3 * chunk + 1, root), of_long(Algorithm::chain));
  }
}

TEST_P(CollectivesOf, GatherAndScatter) {
  if (!linked()) return;
  for (const std::size_t root : {std::size_t{0}, cluster_.size() - 1}) {
    gather_and_scatter<float>(cluster_, 3, root);
    gather_and_scatter<double>(cluster_, 3001, root);
    gather_and_scatter<std::uint8_t>(cluster_, chunk + 1, root);
  }
}

TEST_P(CollectivesOf, AllToAll) {
  if (!linked()) return;
  for (const std::uint64_t count : {std::uint64_t{1}, std::uint64_t{3001}, std::uint64_t{70'000}}) {
    for (const bool with_counts : {false, true}) {
      all_to_all<double>(cluster_, [count](std::size_t, std::size_t) { return count; }, with_counts);
    }
  }
}

// Any counts, many of them 0, and most elements between few.
TEST_P(CollectivesOf, AllToAllSkewed) {
  if (!linked()) return;
  for (unsigned seed = 0; seed < 4; ++seed) {
    const auto counts = [seed](std::size_t from, std::size_t to) -> std::uint64_t {
      std::mt19937 random(static_cast<unsigned>(seed * 1000 + from * 40 + to));
      const auto kind = random() % 8;
      if (kind < 3 || seed == 3) return 0;
      return kind == 7 ? 150'000 + random() % 1000 : random() % 5000;
    };
    all_to_all<float>(cluster_, counts, true);
  }
}

TEST_P(CollectivesOf, BarrierWaitsForAll) {
  for (int round = 0; round < 3; ++round) {
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < cluster_.size(); ++rank) {
      for (const auto& [id, result] : ops) ASSERT_EQ(result.count(), 0u);
      ops.push_back(cluster_[rank].start({.kind = Collective::barrier}));
    }
    for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error);
  }
}

// To every linked member and back, some short and some long, all with one tag.
TEST_P(CollectivesOf, SendAndRecv) {
  std::vector<std::vector<float>> buffers;
  std::vector<PendingOp> ops;
  struct Check {
    std::size_t buffer;
    std::size_t from;
    std::uint64_t count;
  };
  std::vector<Check> checks;
  for (std::size_t from = 0; from < cluster_.size(); ++from) {
    for (const std::size_t distance : {1, 2}) {
      const std::size_t to = (from + distance) % cluster_.size();
      if (to == from) continue;
      const std::uint64_t count = distance == 1 ? 100'000 + from : 10 + from;
      buffers.push_back(block<float>(from, 0, count));
      ops.push_back(cluster_[from].start({.kind = Collective::send,
                                          .send = buffers.back().data(),
                                          .send_count = count,
                                          .tag = 9,
                                          .peer = cluster_[to].id}));
      buffers.emplace_back(count);
      ops.push_back(cluster_[to].start({.kind = Collective::recv,
                                        .recv = buffers.back().data(),
                                        .recv_count = count,
                                        .tag = 9,
                                        .peer = cluster_[from].id}));
      checks.push_back({buffers.size() - 1, from, count});
    }
  }
  for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error) << result.get().error->message;
  for (const Check& check : checks) EXPECT_EQ(buffers[check.buffer], block<float>(check.from, 0, check.count));
}

INSTANTIATE_TEST_SUITE_P(Peers, CollectivesOf, testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 9, 17));

// Fractions: each block is the same sum every time, whoever is faster.
TEST(ReduceScatter, GivesTheSameBitsEveryTime) {
  Cluster cluster(4);
  constexpr std::uint64_t count = 300'000;
  std::vector<std::vector<float>> send(4, std::vector<float>(4 * count)), first(4), recv(4);
  std::mt19937 random(1);
  for (auto& values : send) {
    for (float& value : values) value = std::normal_distribution<float>(0, 1e3f)(random);
  }
  for (int round = 0; round < 5; ++round) {
    std::vector<PendingOp> ops;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t rank = (i + static_cast<std::size_t>(round)) % 4;
      recv[rank].assign(count, 0);
      ops.push_back(cluster[rank].start({.kind = Collective::reduce_scatter,
                                         .send = send[rank].data(),
                                         .send_count = 4 * count,
                                         .recv = recv[rank].data(),
                                         .recv_count = count}));
    }
    for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error);
    if (round == 0) first = recv;
    for (std::size_t rank = 0; rank < 4; ++rank) {
      ASSERT_EQ(std::memcmp(recv[rank].data(), first[rank].data(), count * sizeof(float)), 0);
    }
  }
}

// Many messages with one tag are under way in both directions at once, and meet in the order of the calls.
TEST(SendRecv, ManyInFlightWithOneTag) {
  Cluster cluster(2);
  constexpr std::size_t messages = 7;
  std::vector<std::vector<std::int64_t>> sent, received(2 * messages);
  std::vector<PendingOp> ops;
  for (std::size_t i = 0; i < messages; ++i) {
    for (std::size_t from = 0; from < 2; ++from) {
      sent.push_back(block<std::int64_t>(from, i, 1 + i * i * 4000));
      Peer& peer = cluster[from];
      ops.push_back(peer.start({.kind = Collective::send,
                                .send = sent.back().data(),
                                .send_count = sent.back().size(),
                                .dtype = DType::i64,
                                .tag = 1,
                                .peer = cluster[1 - from].id}));
    }
  }
  for (std::size_t i = 0; i < 2 * messages; ++i) {
    received[i].resize(sent[i].size());
    ops.push_back(cluster[1 - i % 2].start({.kind = Collective::recv,
                                            .recv = received[i].data(),
                                            .recv_count = received[i].size(),
                                            .dtype = DType::i64,
                                            .tag = 1,
                                            .peer = cluster[i % 2].id}));
  }
  for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error) << result.get().error->message;
  EXPECT_EQ(received, sent);
}

// All kinds at once over the same links, each peer in an order of its own.
TEST(Collectives, OfAllKindsAtOnce) {
  constexpr std::size_t peers = 3;
  Cluster cluster(peers);
  constexpr std::uint64_t count = 200'000;
  std::mt19937 random(5);
  for (int round = 0; round < 4; ++round) {
    std::vector<std::vector<std::vector<float>>> buffers(peers);
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < peers; ++rank) {
      auto& mine = buffers[rank];
      for (int i = 0; i < 6; ++i) mine.push_back(std::vector<float>(peers * count, static_cast<float>(rank + 1)));
      const auto call = [&](Collective kind, std::size_t send, std::uint64_t send_count, std::size_t recv,
                            std::uint64_t recv_count) {
        return CollectiveCall{.kind = kind,
                              .send = send_count == 0 ? nullptr : mine[send].data(),
                              .send_count = send_count,
                              .recv = recv_count == 0 ? nullptr : mine[recv].data(),
                              .recv_count = recv_count,
                              .tag = static_cast<std::uint64_t>(kind),
                              .peer = cluster[1].id};
      };
      std::vector<CollectiveCall> calls = {
          call(Collective::all_reduce, 0, count, 0, count), call(Collective::broadcast, 1, 0, 1, count),
          call(Collective::all_to_all, 2, 3 * count, 3, 3 * count), call(Collective::barrier, 0, 0, 0, 0),
          call(Collective::all_gather, 4, count, 5, 3 * count)};
      std::shuffle(calls.begin(), calls.end(), random);
      for (const CollectiveCall& one : calls) ops.push_back(cluster[rank].start(one));
    }
    for (const auto& [id, result] : ops) ASSERT_FALSE(result.get().error) << result.get().error->message;
    for (const auto& mine : buffers) {
      EXPECT_EQ(mine[0][count - 1], 6);
      EXPECT_EQ(mine[1][count - 1], 2);
      for (std::size_t from = 0; from < peers; ++from) {
        EXPECT_EQ(mine[3][from * count + 7], static_cast<float>(from + 1));
        EXPECT_EQ(mine[5][from * count + 7], static_cast<float>(from + 1));
      }
    }
  }
}

}  // namespace
}  // namespace pccl::test
