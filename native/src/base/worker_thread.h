// One thread that runs tasks in the order they came: for work that would hold up the I/O thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace pccl {

class WorkerThread {
 public:
  // Tasks must not throw.
  using Task = std::function<void()>;

  WorkerThread();
  ~WorkerThread() { stop(); }

  // A task that comes after stop() is dropped.
  void post(Task task);
  // Waits for the running task; those behind it are dropped. Idempotent, but not for two threads at once.
  void stop();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace pccl
