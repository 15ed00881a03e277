// The thread that experts and DiLoCo of one environment compute on: calls run one after the other in their order, and
// JavaScript gets a promise of each. The environment's own thread stays free.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "base/worker_thread.h"
#include "moe/step/routed_pass.h"
#include "node/buffers.h"
#include "pccl/engine.h"

namespace pccl::node {

class ComputeThread;
void deliver_computed(Napi::Env env, Napi::Function unused, ComputeThread* thread, void* none);

class ComputeThread {
 public:
  // What a call does on the thread. It ends early once `stopped` is set, which an environment does that ends itself.
  using Work = std::function<void(moe::RoutedWorkspace& workspace, const std::atomic<bool>& stopped)>;

  // The environment's, made by its first call.
  static ComputeThread& of(Napi::Env env);

  // What the lease holds stays pinned, and the process alive, until the promise is settled. It is rejected with
  // ERR_PCCL_OUT_OF_MEMORY if the work throws std::bad_alloc. `call` begins that message. Throws
  // ERR_PCCL_TOO_MANY_OPS when so many calls wait that somebody makes them without awaiting any.
  Napi::Promise start(Napi::Env env, const std::string& call, Lease lease, Work work);

 private:
  friend void deliver_computed(Napi::Env env, Napi::Function unused, ComputeThread* thread, void* none);
  using Wakeup = Napi::TypedThreadSafeFunction<ComputeThread, void, &deliver_computed>;
  struct Call {
    Napi::Promise::Deferred deferred;
    Lease lease;
  };
  struct Ended {
    std::uint64_t id = 0;
    std::optional<Error> error;
  };

  ComputeThread() = default;
  void end(std::uint64_t id, std::optional<Error> error);
  void deliver(Napi::Env env);
  static void on_environment_exit(void* thread);

  // The environment's thread.
  Wakeup wakeup_;
  std::uint64_t next_id_ = 0;
  std::map<std::uint64_t, Call> calls_;
  // The worker's.
  moe::RoutedWorkspace workspace_;
  // Both.
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::vector<Ended> ended_;

  WorkerThread worker_;
};

}  // namespace pccl::node
