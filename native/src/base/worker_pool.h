// Threads that share what would hold up the I/O thread: tasks begin in the order they came. The first thread is there
// at once, the others from when there is work for them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pccl {

class WorkerPool {
 public:
  // Tasks must not throw.
  using Task = std::function<void()>;

  // Throws std::system_error when there can't be a thread.
  explicit WorkerPool(std::size_t threads_max);
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;

  // As many as run at the same time.
  std::size_t threads_max() const { return threads_max_; }
  // A task that comes after stop() is dropped.
  void post(Task task);
  // Waits for the running tasks; those behind them are dropped. Idempotent, but not for two threads at once.
  void stop();

 private:
  void run();

  const std::size_t threads_max_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace pccl
