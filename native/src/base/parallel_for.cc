#include "base/parallel_for.h"

#include <algorithm>
#include <utility>

namespace pccl {
namespace {

// Lives until the last task that refers to it is gone, run or dropped.
struct Shared {
  ~Shared() { ended.set_value(); }

  ParallelWork work;
  std::shared_ptr<const std::atomic<bool>> stop;
  std::atomic<std::uint64_t> next = 0;
  std::atomic<std::uint64_t> running;
  std::promise<void> ended;
};

void run(Shared& shared) {
  const ParallelWork& work = shared.work;
  while (!shared.stop->load(std::memory_order_relaxed)) {
    const std::uint64_t begin = shared.next.fetch_add(work.batch, std::memory_order_relaxed);
    if (begin >= work.count) break;
    work.body(begin, std::min(work.count, begin + work.batch));
  }
  // The last one sees what all others did.
  if (shared.running.fetch_sub(1) == 1 && !shared.stop->load()) work.done();
}

}  // namespace

std::shared_future<void> parallel_for(WorkerPool& pool, ParallelWork work,
                                      std::shared_ptr<const std::atomic<bool>> stop) {
  const std::uint64_t batches = (work.count + work.batch - 1) / work.batch;
  const std::uint64_t tasks = std::clamp<std::uint64_t>(batches, 1, pool.threads_max());
  auto shared = std::make_shared<Shared>();
  shared->work = std::move(work);
  shared->stop = std::move(stop);
  shared->running = tasks;
  const std::shared_future<void> ended = shared->ended.get_future().share();
  for (std::uint64_t i = 0; i < tasks; ++i) pool.post([shared] { run(*shared); });
  return ended;
}

}  // namespace pccl
