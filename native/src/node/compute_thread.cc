#include "node/compute_thread.h"

#include <new>
#include <string>
#include <utility>

#include "node/engine_object.h"
#include "node/errors.h"

namespace pccl::node {

namespace {

constexpr std::size_t calls_max = 4096;

}  // namespace

ComputeThread& ComputeThread::of(Napi::Env env) {
  auto* const environment = env.GetInstanceData<Environment>();
  if (environment->compute_thread == nullptr) {
    auto* const thread = new ComputeThread;
    thread->wakeup_ = Wakeup::New(
        env, "pccl.compute", 0, 1, thread, [](Napi::Env, ComputeThread* unused, ComputeThread*) { delete unused; },
        thread);
    thread->wakeup_.Unref(env);
    // Hooks run in reverse order, so that the worker has ended before the thread-safe function does.
    napi_add_env_cleanup_hook(env, &on_environment_exit, thread);
    environment->compute_thread = thread;
  }
  return *environment->compute_thread;
}

Napi::Promise ComputeThread::start(Napi::Env env, const std::string& call, Lease lease, Work work) {
  if (calls_.size() >= calls_max) {
    throw_error(env, {ErrorCode::too_many_ops,
                      call + ": " + std::to_string(calls_max) + " calls wait to be computed already.", std::nullopt});
  }
  const std::uint64_t id = next_id_++;
  const Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
  calls_.emplace(id, Call{deferred, std::move(lease)});
  if (calls_.size() == 1) wakeup_.Ref(env);
  worker_.post([this, id, call, run = std::move(work)] {
    std::optional<Error> error;
    try {
      run(workspace_, stopped_);
    } catch (const std::bad_alloc&) {
      error = {ErrorCode::out_of_memory,
               call + ": there is no memory to compute in; the results are unfinished.", std::nullopt};
    }
    end(id, std::move(error));
  });
  return deferred.Promise();
}

void ComputeThread::end(std::uint64_t id, std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  ended_.push_back({id, std::move(error)});
  if (ended_.size() == 1) wakeup_.NonBlockingCall();
}

void ComputeThread::deliver(Napi::Env env) {
  std::vector<Ended> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(ended_);
  }
  for (const Ended& one : ended) {
    const auto found = calls_.find(one.id);
    const Napi::Promise::Deferred deferred = found->second.deferred;
    calls_.erase(found);
    if (one.error) {
      deferred.Reject(error_of(env, *one.error).Value());
    } else {
      deferred.Resolve(env.Undefined());
    }
  }
  if (!ended.empty() && calls_.empty()) wakeup_.Unref(env);
}

void deliver_computed(Napi::Env env, Napi::Function, ComputeThread* thread, void*) {
  // Without an environment the wake-up is only being discarded.
  if (static_cast<napi_env>(env) == nullptr) return;
  try {
    thread->deliver(env);
  } catch (const Napi::Error&) {
    // The environment is being terminated: no promise of it can be settled any more.
  }
}

void ComputeThread::on_environment_exit(void* data) {
  auto* const thread = static_cast<ComputeThread*>(data);
  thread->stopped_ = true;
  thread->worker_.stop();
  thread->calls_.clear();
  thread->wakeup_.Abort();
}

}  // namespace pccl::node
