// Goal: short ops that are carried out on their callers' threads end as others do, whatever the engines' own threads
// are asked for meanwhile. Each peer's caller is a thread, as it would be a process.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cluster.h"

namespace pccl::test {
namespace {

using namespace std::chrono_literals;

// What a caller finds first; each stops there.
class Findings {
 public:
  void add(const std::string& what) {
    const std::lock_guard lock(mutex_);
    found_ += what + "\n";
    any_ = true;
  }
  bool any() const { return any_; }
  std::string all() const {
    const std::lock_guard lock(mutex_);
    return found_;
  }

 private:
  mutable std::mutex mutex_;
  std::atomic<bool> any_ = false;
  std::string found_;
};

void on_all(Cluster& cluster, const std::function<void(std::size_t rank)>& caller) {
  std::vector<std::thread> callers;
  for (std::size_t rank = 0; rank < cluster.size(); ++rank) callers.emplace_back([&, rank] { caller(rank); });
  for (std::thread& thread : callers) thread.join();
}

// All-reduces of `count` numbers, one after the other, each checked.
void reduce(Cluster& cluster, std::size_t rank, int ops, std::size_t count, Findings& findings) {
  const auto ranks = static_cast<float>(cluster.size());
  for (int op = 0; op < ops && !findings.any(); ++op) {
    std::vector<float> data(count, static_cast<float>(op % 1000) + static_cast<float>(rank));
    const OpResult result = cluster[rank].all_reduce({data.data(), data.data(), count}).second.get();
    const float sum = ranks * static_cast<float>(op % 1000) + ranks * (ranks - 1) / 2;
    if (result.error) {
      findings.add("rank " + std::to_string(rank) + ": " + result.error->message);
    } else if (data != std::vector<float>(count, sum)) {
      findings.add("rank " + std::to_string(rank) + ": a wrong sum in op " + std::to_string(op));
    }
  }
}

TEST(Driven, AnOpOfOneEndsWithinItsCall) {
  Cluster cluster(1);
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  // Not while the engine's own thread is still awake.
  for (bool within = false; !within;) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::vector<float> data(1000, 3);
    const Awaited<std::thread::id> ended_on;
    const CollectiveCall call = AllReduce{data.data(), data.data(), data.size()}.call();
    cluster[0].engine->start(call, [&](OpId, const OpResult&) { ended_on.set(std::this_thread::get_id()); });
    within = ended_on.get() == std::this_thread::get_id();
    EXPECT_EQ(data, std::vector<float>(1000, 3));
  }
}

TEST(Driven, OpsOfManyCallersEnd) {
  for (const std::size_t peers : {2, 4}) {
    Cluster cluster(peers, {}, nullptr, TransportMode::automatic);
    for (const std::size_t count : {1, 1024, 16'000}) {
      Findings findings;
      on_all(cluster, [&](std::size_t rank) { reduce(cluster, rank, 300, count, findings); });
      ASSERT_FALSE(findings.any()) << findings.all();
    }
  }
}

// Those that take turns with longer ones, which are for the engines' own threads.
TEST(Driven, LongOpsInBetween) {
  Cluster cluster(3, {}, nullptr, TransportMode::automatic);
  Findings findings;
  on_all(cluster, [&](std::size_t rank) {
    for (int round = 0; round < 40; ++round) {
      reduce(cluster, rank, 3, 100, findings);
      reduce(cluster, rank, 1, 100'000, findings);
    }
  });
  ASSERT_FALSE(findings.any()) << findings.all();
}

// The engine is asked for other things while its caller has the loop, as a session asks it.
TEST(Driven, LeavesTheLoopToThoseWhoAsk) {
  Cluster cluster(2, {}, nullptr, TransportMode::automatic);
  Findings findings;
  std::atomic<bool> over = false;
  std::thread asker([&] {
    for (std::uint32_t size = 2; !over; ++size) {
      for (std::size_t rank = 0; rank < 2; ++rank) cluster[rank].engine->set_world(cluster.epoch(), size);
    }
  });
  on_all(cluster, [&](std::size_t rank) { reduce(cluster, rank, 2000, 64, findings); });
  over = true;
  asker.join();
  ASSERT_FALSE(findings.any()) << findings.all();
}

// Views come while callers have the loop: an op is either of the old or of the new one.
TEST(Driven, ViewsInBetween) {
  Cluster cluster(2, {}, nullptr, TransportMode::automatic);
  Findings findings;
  std::atomic<int> running = 2;
  std::thread coordinator([&] {
    while (running > 0) cluster.next_view();
  });
  on_all(cluster, [&](std::size_t rank) {
    std::uint64_t committed = 0;
    while (committed < 500 && !findings.any()) {
      std::vector<float> data(64, 1);
      const OpResult result = cluster[rank].all_reduce({data.data(), data.data(), data.size()}).second.get();
      if (!result.error) ++committed;
      if (result.error && result.error->code != ErrorCode::peer_lost) findings.add(result.error->message);
      if (data != std::vector<float>(64, result.error ? 1 : 2)) findings.add("a wrong sum");
    }
    --running;
  });
  coordinator.join();
  ASSERT_FALSE(findings.any()) << findings.all();
}

TEST(Driven, ClosesWhileOneCalls) {
  for (int round = 0; round < 20; ++round) {
    Cluster cluster(2, {}, nullptr, TransportMode::automatic);
    std::atomic<bool> calls = false;
    std::thread caller([&] {
      for (;;) {
        std::vector<float> data(64, 1);
        try {
          // Nobody else calls it.
          const auto op = cluster[0].all_reduce({data.data(), data.data(), data.size()});
          calls = true;
          const OpResult result = op.second.get();
          EXPECT_EQ(result.error.value().code, ErrorCode::closed);
        } catch (const EngineError& error) {
          EXPECT_EQ(error.error().code, ErrorCode::closed);
          return;
        }
      }
    });
    while (!calls) std::this_thread::yield();
    cluster[0].engine->close();
    caller.join();
  }
}

}  // namespace
}  // namespace pccl::test
