// Goal: collectives of peers that read each other's memory give what those over links give, on one host and on
// several, leave the caller's memory alone when they fail, and go over the links where memory can't be read.
#include <gtest/gtest.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/dtype.h"
#include "cluster.h"

namespace pccl::test {
namespace {

using Layout = std::vector<std::uint32_t>;  // the host of each rank

Cluster cluster_on(const Layout& hosts, TransportMode transport = TransportMode::automatic) {
  return Cluster(
      hosts.size(), {},
      [hosts](View& view) {
        view.hosts = hosts;
        view.hosts.resize(view.ring.size(), 100);
      },
      transport);
}

bool shares_a_host(const Layout& hosts) {
  for (std::size_t rank = 1; rank < hosts.size(); ++rank) {
    if (std::count(hosts.begin(), hosts.end(), hosts[rank]) > 1) return true;
  }
  return false;
}

Algorithm algorithm_for(const Layout& hosts) {
  if (hosts.size() == 1) return Algorithm::alone;
  // Two are faster through their lane.
  if (!shares_a_host(hosts) || hosts.size() == 2) return Algorithm::ring;
  return std::count(hosts.begin(), hosts.end(), hosts[0]) == static_cast<std::ptrdiff_t>(hosts.size())
             ? Algorithm::direct
             : Algorithm::hierarchical;
}

template <typename T>
std::vector<T> numbers(std::size_t rank, std::uint64_t count) {
  std::vector<T> values(count);
  for (std::uint64_t i = 0; i < count; ++i) values[i] = static_cast<T>((rank * 7 + i * 3 + 1) % 23);
  return values;
}

// As if it lay in huge pages.
CollectiveCall in_place(std::vector<float>& data, std::uint64_t tag) {
  return {.send = data.data(),
          .send_count = data.size(),
          .recv = data.data(),
          .recv_count = data.size(),
          .tag = tag,
          .in_huge_pages = true};
}

// Each rank's result, all the same.
template <typename T>
std::vector<T> all_reduced(Cluster& cluster, const Layout& hosts, DType dtype, std::uint64_t count, ReduceOp op,
                           bool in_place) {
  const std::size_t ranks = hosts.size();
  std::vector<std::vector<T>> send;
  std::vector<std::vector<T>> recv(ranks);
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    send.push_back(numbers<T>(rank, count));
    recv[rank] = in_place ? send[rank] : std::vector<T>(count);
    const void* const from = in_place ? recv[rank].data() : send[rank].data();
    ops.push_back(cluster[rank].start({.send = from,
                                       .send_count = count,
                                       .recv = recv[rank].data(),
                                       .recv_count = count,
                                       .dtype = dtype,
                                       .op = op,
                                       .tag = 3,
                                       .in_huge_pages = true}));
  }
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const OpResult result = ops[rank].second.get();
    EXPECT_FALSE(result.error) << result.error->message;
    EXPECT_EQ(result.algorithm, algorithm_for(hosts));
    EXPECT_EQ(std::memcmp(recv[rank].data(), recv[0].data(), count * sizeof(T)), 0) << "rank " << rank;
    if (!in_place) {
      EXPECT_EQ(send[rank], numbers<T>(rank, count));
    }
  }
  return recv[0];
}

class Direct : public testing::TestWithParam<Layout> {};

TEST_P(Direct, AllReducesAnyLength) {
  const Layout& hosts = GetParam();
  Cluster cluster = cluster_on(hosts);
  for (const std::uint64_t count : {30'001, 65'536, 400'000, 1'500'003}) {
    const auto sums = all_reduced<float>(cluster, hosts, DType::f32, count, ReduceOp::sum, count % 2 == 0);
    for (std::uint64_t i = 0; i < count; ++i) {
      float sum = 0;
      for (std::size_t rank = 0; rank < hosts.size(); ++rank) sum += static_cast<float>((rank * 7 + i * 3 + 1) % 23);
      ASSERT_EQ(sums[i], sum) << "element " << i << " of " << count;
    }
  }
}

TEST_P(Direct, AllReducesAnyKind) {
  const Layout& hosts = GetParam();
  Cluster cluster = cluster_on(hosts);
  constexpr std::uint64_t count = 150'001;
  const auto values = [&](std::uint64_t i) {
    std::vector<std::uint64_t> all;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) all.push_back((rank * 7 + i * 3 + 1) % 23);
    return all;
  };
  const auto averages = all_reduced<std::int64_t>(cluster, hosts, DType::i64, count, ReduceOp::avg, true);
  const auto maxima = all_reduced<std::uint8_t>(cluster, hosts, DType::u8, count, ReduceOp::max, false);
  const auto products = all_reduced<double>(cluster, hosts, DType::f64, count, ReduceOp::prod, true);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto all = values(i);
    const std::uint64_t sum = std::accumulate(all.begin(), all.end(), std::uint64_t{0});
    ASSERT_EQ(averages[i], static_cast<std::int64_t>(sum / all.size()));
    ASSERT_EQ(maxima[i], *std::max_element(all.begin(), all.end()));
    double product = 1;
    for (const std::uint64_t value : all) product *= static_cast<double>(value);
    ASSERT_EQ(products[i], product);
  }
}

TEST_P(Direct, RestoresWhenOneWithdraws) {
  const Layout& hosts = GetParam();
  Cluster cluster = cluster_on(hosts);
  constexpr std::uint64_t count = 4'000'000;
  for (std::size_t by = 0; by < hosts.size(); ++by) {
    std::vector<std::vector<float>> data;
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
      data.push_back(numbers<float>(rank, count));
      ops.push_back(cluster[rank].start(in_place(data[rank], by)));
    }
    const bool withdrawn = cluster[by].engine->cancel(ops[by].first);
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
      const auto error = ops[rank].second.get().error;
      ASSERT_EQ(error.has_value(), withdrawn);
      if (!withdrawn) continue;
      EXPECT_EQ(error->code, ErrorCode::cancelled);
      EXPECT_EQ(data[rank], numbers<float>(rank, count)) << "rank " << rank;
    }
  }
}

// Frozen at some moment, most often in the middle, everybody follows the same verdict.
TEST_P(Direct, FollowsTheVerdictWhenFrozen) {
  const Layout& hosts = GetParam();
  Cluster cluster = cluster_on(hosts);
  constexpr std::uint64_t count = 3'000'000;
  for (int round = 0; round < 6; ++round) {
    std::vector<std::vector<float>> data;
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
      data.push_back(numbers<float>(rank, count));
      ops.push_back(cluster[rank].start(in_place(data[rank], 0)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * round));
    cluster.next_view();
    const bool failed = ops[0].second.get().error.has_value();
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
      const auto error = ops[rank].second.get().error;
      ASSERT_EQ(error.has_value(), failed);
      EXPECT_EQ(data[rank], failed ? numbers<float>(rank, count) : data[0]) << "rank " << rank;
    }
  }
}

TEST_P(Direct, SurvivesAMembersEnd) {
  const Layout& hosts = GetParam();
  for (std::size_t dead = 0; dead < hosts.size(); ++dead) {
    Cluster cluster = cluster_on(hosts);
    constexpr std::uint64_t count = 3'000'000;
    std::vector<std::vector<float>> data;
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
      data.push_back(numbers<float>(rank, count));
      ops.push_back(cluster[rank].start(in_place(data[rank], 0)));
    }
    cluster.kill(dead);
    cluster.next_view();
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
      const auto error = ops[rank].second.get().error;
      if (!error) continue;
      EXPECT_EQ(data[rank], numbers<float>(rank, count)) << "rank " << rank;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Hosts, Direct,
                         testing::Values(Layout{0, 0}, Layout{0, 0, 0}, Layout{0, 0, 0, 0, 0}, Layout{0, 0, 1, 1},
                                         Layout{0, 1, 0}, Layout{0, 1, 0, 1, 2, 1}),
                         [](const auto& layout) {
                           std::string name = "On";
                           for (const std::uint32_t host : layout.param) name += std::to_string(host);
                           return name;
                         });

// Members of one host; those of several save bytes between hosts.
TEST(DirectFallback, GoesOverLinksWhereOneHasSmallPages) {
  const Layout hosts{0, 0, 0};
  Cluster cluster = cluster_on(hosts);
  std::vector<std::vector<float>> data;
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) data.push_back(numbers<float>(rank, 200'000));
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
    CollectiveCall call = in_place(data[rank], 0);
    call.in_huge_pages = rank != 1;
    ops.push_back(cluster[rank].start(call));
  }
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
    const OpResult result = ops[rank].second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    EXPECT_EQ(result.algorithm, Algorithm::ring);
    EXPECT_EQ(data[rank], data[0]);
  }
}

// From now on, on every thread of this process, as where a policy forbids it.
void forbid_reading_others() {
  const std::array<sock_filter, 4> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{program.size(), const_cast<sock_filter*>(program.data())};
  ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter), 0);
}

std::vector<OpResult> all_reduce_in_place(Cluster& cluster, std::vector<std::vector<float>>& data) {
  std::vector<PendingOp> ops;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) ops.push_back(cluster[rank].start(in_place(data[rank], 0)));
  std::vector<OpResult> results;
  for (const auto& [id, result] : ops) results.push_back(result.get());
  return results;
}

// In a process of its own, which the filter ends with.
template <typename F>
void in_another_process(F body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

void expect_over_links(Cluster& cluster) {
  std::vector<std::vector<float>> data;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) data.push_back(numbers<float>(rank, 200'000));
  for (const OpResult& result : all_reduce_in_place(cluster, data)) {
    ASSERT_FALSE(result.error) << result.error->message;
    EXPECT_EQ(result.algorithm, Algorithm::ring);
    EXPECT_EQ(result.transport, Transport::shm);
  }
  for (std::uint64_t i = 0; i < 200'000; ++i) {
    float sum = 0;
    for (std::size_t rank = 0; rank < cluster.size(); ++rank) sum += static_cast<float>((rank * 7 + i * 3 + 1) % 23);
    for (const auto& values : data) ASSERT_EQ(values[i], sum);
  }
}

TEST(DirectFallback, GoesOverLinksWhereReadingIsForbidden) {
  in_another_process([] {
    forbid_reading_others();
    Cluster cluster = cluster_on({0, 0, 0});
    expect_over_links(cluster);
  });
}

// Once, in the op that finds it out.
TEST(DirectFallback, GoesOverLinksFromWhenReadingFails) {
  in_another_process([] {
    const Layout hosts{0, 0, 0};
    Cluster cluster = cluster_on(hosts);
    std::vector<std::vector<float>> data;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) data.push_back(numbers<float>(rank, 200'000));
    for (const OpResult& result : all_reduce_in_place(cluster, data)) EXPECT_EQ(result.algorithm, Algorithm::direct);
    forbid_reading_others();
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) data[rank] = numbers<float>(rank, 200'000);
    for (const OpResult& result : all_reduce_in_place(cluster, data)) {
      ASSERT_TRUE(result.error);
      EXPECT_EQ(result.error->code, ErrorCode::peer_lost);
    }
    for (std::size_t rank = 0; rank < hosts.size(); ++rank) EXPECT_EQ(data[rank], numbers<float>(rank, 200'000));
    expect_over_links(cluster);
  });
}

TEST(DirectFallback, GoesOverLinksWhereMemoryCantBeRead) {
  // Links over TCP tell nothing of the process behind them.
  for (const Layout& hosts : {Layout{0, 0, 0}, Layout{0, 0, 1, 1}}) {
    Cluster cluster = cluster_on(hosts, TransportMode::tcp);
    for (const bool in_place : {false, true}) {
      std::vector<std::vector<float>> send;
      std::vector<std::vector<float>> recv(hosts.size(), std::vector<float>(200'000));
      std::vector<PendingOp> ops;
      for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
        send.push_back(numbers<float>(rank, 200'000));
        float* const into = in_place ? send[rank].data() : recv[rank].data();
        ops.push_back(cluster[rank].all_reduce({send[rank].data(), into, 200'000}));
      }
      for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
        const OpResult result = ops[rank].second.get();
        ASSERT_FALSE(result.error) << result.error->message;
        EXPECT_EQ(result.algorithm, Algorithm::ring);
        EXPECT_EQ(in_place ? send[rank] : recv[rank], in_place ? send[0] : recv[0]);
      }
    }
  }
}

}  // namespace
}  // namespace pccl::test
