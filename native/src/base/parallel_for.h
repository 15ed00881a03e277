// One piece of work on all of a pool's threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>

#include "base/worker_pool.h"

namespace pccl {

struct ParallelWork {
  std::uint64_t count = 0;
  std::uint64_t batch = 1;
  std::function<void(std::uint64_t begin, std::uint64_t end)> body;  // on several threads at once
  std::function<void()> done;                                        // on the last of them
};

// Runs `body` over 0 … count in batches. Once `stop` is true no further batch begins, and `done` isn't called. The
// future is ready when no thread runs the body any more, or ever will, also if the pool is stopped.
std::shared_future<void> parallel_for(WorkerPool& pool, ParallelWork work,
                                      std::shared_ptr<const std::atomic<bool>> stop);

}  // namespace pccl
