// One environment's hold on an engine: the function that its events go to, the leases on its buffers, and the
// order in which all of it ends.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "node/buffers.h"
#include "node/engine_registry.h"
#include "node/event_queue.h"
#include "pccl/engine.h"

namespace pccl::node {

// owner: created the engine, starts its ops, and ends it. control: installs its views.
enum class Role : std::uint8_t { owner, control };

// All of it runs on the environment's thread. Besides its JavaScript handle, the thread-safe function holds the
// attachment until it is finalized; losing the handle to the garbage collector thus ends nothing.
class Attachment {
 public:
  static std::shared_ptr<Attachment> create(Napi::Env env, std::shared_ptr<SharedEngine> shared, Role role,
                                            Napi::Function on_events);

  Role role() const { return role_; }
  bool is_closed() const { return shared_ == nullptr; }
  // Both while it is open only.
  std::uint32_t engine_id() const { return shared_->id; }
  Engine& engine() const { return *shared_->engine; }

  // What the engine's op callbacks do: hand the result to this environment.
  OpCallback op_callback() const;
  // Call after the engine has accepted an op. Its buffers stay pinned and the process stays alive until the event.
  void op_started(Napi::Env env, OpId id, Lease lease);

  // As op_started; the buffers stay pinned after a successful event too, until end_export.
  void export_started(Napi::Env env, OpId id, Lease lease, std::vector<std::string> names);
  // The names of an export in order, or null if there is none with this id.
  const std::vector<std::string>* export_names(OpId id) const;
  void end_export(OpId id);
  // As op_started; the export's buffers are let go of with the event.
  void commit_started(Napi::Env env, OpId id, OpId export_id);

  // Idempotent. An owner's ops in flight fail; their events are still delivered.
  void close(Napi::Env env);

 private:
  friend void deliver_events(Napi::Env env, Napi::Function on_events, Attachment* attachment, void* unused);
  struct Export {
    Lease lease;
    std::vector<std::string> names;
  };

  Attachment(std::shared_ptr<SharedEngine> shared, Role role) : shared_(std::move(shared)), role_(role) {}
  void deliver(Napi::Env env, Napi::Function on_events);
  void op_ended(Napi::Env env, const OpEnded& event);
  void detach_from_engine();
  void release(Napi::Env env);
  static void on_environment_exit(void* attachment);

  std::shared_ptr<SharedEngine> shared_;  // null once closed
  const Role role_;
  Wakeup wakeup_;
  bool is_released_ = false;
  std::shared_ptr<EventQueue> events_;
  // Ops whose event hasn't been delivered. The wake-up function holds the process while there are any.
  std::uint32_t ops_in_flight_ = 0;
  std::unordered_map<OpId, Lease> leases_;
  std::unordered_map<OpId, Export> exports_;
};

}  // namespace pccl::node
