// Events on their way from the engine's threads to the thread of one JavaScript environment.
#pragma once

#include <napi.h>

#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "pccl/engine.h"

namespace pccl::node {

struct OpEnded {
  OpId id;
  OpResult result;
};
struct Prepared {
  Epoch epoch;
  std::vector<LinkFailure> failures;
};
struct LinkLost {
  Epoch epoch;
  PeerId peer;
  std::string reason;
};
struct Probed {
  std::uint64_t id;
  ProbeResult result;
};
using Event = std::variant<OpEnded, Prepared, LinkLost, StalledOp, Probed>;

// Sets tag and seq, and from and to of an op of two members.
void set_op_key(Napi::Env env, Napi::Object object, const OpKey& key);
// The event as the EngineEvent of addon.ts.
Napi::Object event_object(Napi::Env env, const Event& event);

class Attachment;
void deliver_events(Napi::Env env, Napi::Function on_events, Attachment* attachment, void* unused);
using Wakeup = Napi::TypedThreadSafeFunction<Attachment, void, &deliver_events>;

// The engine's callbacks share the queue with the attachment and may outlive it: a callback that comes after
// shut() finds the queue shut and must not touch the thread-safe function, which may be gone by then.
class EventQueue {
 public:
  explicit EventQueue(Wakeup wakeup) : wakeup_(wakeup) {}

  // Any thread. Wakes the environment once per batch, not once per event.
  void post(Event event);
  // Environment's thread: everything posted so far.
  std::vector<Event> take();
  // No event is accepted and no wake-up is sent from now on.
  void shut();

 private:
  std::mutex mutex_;
  std::vector<Event> events_;
  bool is_shut_ = false;
  Wakeup wakeup_;
};

}  // namespace pccl::node
