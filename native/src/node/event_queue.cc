#include "node/event_queue.h"

#include <array>
#include <utility>

#include "node/errors.h"

namespace pccl::node {

namespace {

Napi::Number number(Napi::Env env, std::uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

// By the numbers of Algorithm and Transport.
constexpr std::array algorithm_names = {"alone", "ring", "one-shot", "chain", "pairwise", "direct", "hierarchical",
                                        "quantized"};
static_assert(algorithm_names.size() == static_cast<std::size_t>(Algorithm::quantized) + 1);
constexpr std::array transport_names = {"none", "tcp", "shm", "mixed"};
static_assert(transport_names.size() == static_cast<std::size_t>(Transport::mixed) + 1);

struct ToObject {
  Napi::Env env;

  Napi::Object operator()(const OpEnded& event) const {
    Napi::Object object = Napi::Object::New(env);
    if (event.result.error) {
      object.Set("type", "op-failed");
      object.Set("id", number(env, event.id));
      object.Set("error", error_object(env, *event.result.error));
      return object;
    }
    object.Set("type", "op-done");
    object.Set("id", number(env, event.id));
    object.Set("worldSize", number(env, event.result.world_size));
    object.Set("epoch", number(env, event.result.epoch));
    object.Set("txBytes", number(env, event.result.tx_bytes));
    object.Set("rxBytes", number(env, event.result.rx_bytes));
    object.Set("seconds", Napi::Number::New(env, event.result.seconds));
    object.Set("algorithm", algorithm_names[static_cast<std::size_t>(event.result.algorithm)]);
    object.Set("transport", transport_names[static_cast<std::size_t>(event.result.transport)]);
    Napi::Array sources = Napi::Array::New(env, event.result.sources.size());
    for (std::uint32_t i = 0; i < event.result.sources.size(); ++i) {
      sources.Set(i, number(env, event.result.sources[i]));
    }
    object.Set("sources", sources);
    return object;
  }

  Napi::Object operator()(const Prepared& event) const {
    Napi::Array failures = Napi::Array::New(env, event.failures.size());
    for (std::uint32_t i = 0; i < event.failures.size(); ++i) {
      Napi::Object failure = Napi::Object::New(env);
      failure.Set("peerId", number(env, event.failures[i].peer));
      failure.Set("reason", event.failures[i].reason);
      failures.Set(i, failure);
    }
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", "prepared");
    object.Set("epoch", number(env, event.epoch));
    object.Set("failures", failures);
    return object;
  }

  Napi::Object operator()(const LinkLost& event) const {
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", "link-lost");
    object.Set("epoch", number(env, event.epoch));
    object.Set("peerId", number(env, event.peer));
    object.Set("reason", event.reason);
    return object;
  }

  Napi::Object operator()(const StalledOp& event) const {
    Napi::Array missing = Napi::Array::New(env, event.missing.size());
    for (std::uint32_t i = 0; i < event.missing.size(); ++i) missing.Set(i, number(env, event.missing[i]));
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", "stalled");
    object.Set("epoch", number(env, event.epoch));
    set_op_key(env, object, event.key);
    object.Set("missing", missing);
    return object;
  }

  Napi::Object operator()(const Probed& event) const {
    const ProbeResult& result = event.result;
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", "probed");
    object.Set("id", number(env, event.id));
    if (!result.error.empty()) {
      object.Set("reason", result.error);
      return object;
    }
    object.Set("bytesPerSecond", Napi::Number::New(env, result.bytes_per_second));
    object.Set("rttSeconds", Napi::Number::New(env, result.round_trip_seconds));
    object.Set("bytes", number(env, result.bytes));
    object.Set("seconds", Napi::Number::New(env, result.seconds));
    return object;
  }
};

}  // namespace

void set_op_key(Napi::Env env, Napi::Object object, const OpKey& key) {
  object.Set("tag", Napi::BigInt::New(env, key.tag));
  object.Set("seq", number(env, key.seq));
  if (!key.of_two()) return;
  object.Set("from", number(env, key.from));
  object.Set("to", number(env, key.to));
}

Napi::Object event_object(Napi::Env env, const Event& event) { return std::visit(ToObject{env}, event); }

void EventQueue::post(Event event) {
  std::lock_guard lock(mutex_);
  if (is_shut_) return;
  events_.push_back(std::move(event));
  // The lock is held across the call so that shut() can't release the function in between. The call itself only
  // queues and signals. It fails only once the environment is being torn down; then nobody is left to wake.
  if (events_.size() == 1) wakeup_.NonBlockingCall();
}

std::vector<Event> EventQueue::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

void EventQueue::shut() {
  std::lock_guard lock(mutex_);
  is_shut_ = true;
  events_.clear();
}

}  // namespace pccl::node
