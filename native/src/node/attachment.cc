#include "node/attachment.h"

#include <utility>

namespace pccl::node {

std::shared_ptr<Attachment> Attachment::create(Napi::Env env, std::shared_ptr<SharedEngine> shared, Role role,
                                               Napi::Function on_events) {
  std::shared_ptr<Attachment> attachment(new Attachment(std::move(shared), role));
  attachment->wakeup_ = Wakeup::New(
      env, on_events, "pccl.events", 0, 1, attachment.get(),
      [](Napi::Env, std::shared_ptr<Attachment>* holder, Attachment*) { delete holder; },
      new std::shared_ptr<Attachment>(attachment));
  attachment->wakeup_.Unref(env);
  attachment->events_ = std::make_shared<EventQueue>(attachment->wakeup_);
  // Hooks run in reverse order. This one comes after that of the thread-safe function, and so runs before it: the
  // engine's threads are gone, or find the queue shut, before the function goes.
  napi_add_env_cleanup_hook(env, &on_environment_exit, attachment.get());

  if (role == Role::control) {
    ControlCallbacks callbacks;
    callbacks.prepared = [events = attachment->events_](Epoch epoch, const std::vector<LinkFailure>& failures) {
      events->post(Prepared{epoch, failures});
    };
    callbacks.link_lost = [events = attachment->events_](Epoch epoch, PeerId peer, const std::string& reason) {
      events->post(LinkLost{epoch, peer, reason});
    };
    callbacks.probed = [events = attachment->events_](std::uint64_t id, const ProbeResult& result) {
      events->post(Probed{id, result});
    };
    callbacks.stalled = [events = attachment->events_](const StalledOp& op) { events->post(op); };
    attachment->engine().set_control(std::move(callbacks));
  }
  return attachment;
}

OpCallback Attachment::op_callback() const {
  return [events = events_](OpId id, const OpResult& result) { events->post(OpEnded{id, result}); };
}

void Attachment::op_started(Napi::Env env, OpId id, Lease lease) {
  leases_.emplace(id, std::move(lease));
  if (++ops_in_flight_ == 1) wakeup_.Ref(env);
}

void Attachment::export_started(Napi::Env env, OpId id, Lease lease, std::vector<std::string> names) {
  exports_.emplace(id, Export{std::move(lease), std::move(names)});
  if (++ops_in_flight_ == 1) wakeup_.Ref(env);
}

const std::vector<std::string>* Attachment::export_names(OpId id) const {
  const auto found = exports_.find(id);
  return found == exports_.end() ? nullptr : &found->second.names;
}

void Attachment::end_export(OpId id) { exports_.erase(id); }

void Attachment::commit_started(Napi::Env env, OpId id, OpId export_id) {
  const auto found = exports_.find(export_id);
  Lease lease = std::move(found->second.lease);
  exports_.erase(found);
  op_started(env, id, std::move(lease));
}

void Attachment::op_ended(Napi::Env env, const OpEnded& event) {
  leases_.erase(event.id);
  if (event.result.error) exports_.erase(event.id);
  if (--ops_in_flight_ == 0) wakeup_.Unref(env);
}

void Attachment::deliver(Napi::Env env, Napi::Function on_events) {
  const std::vector<Event> events = events_->take();
  if (events.empty()) return;
  // The books first: they must be right even if the environment is ending and JavaScript can't run any more.
  for (const Event& event : events) {
    if (const auto* ended = std::get_if<OpEnded>(&event)) op_ended(env, *ended);
  }
  try {
    Napi::Array array = Napi::Array::New(env, events.size());
    for (std::uint32_t i = 0; i < events.size(); ++i) array.Set(i, event_object(env, events[i]));
    on_events.Call({array});
  } catch (const Napi::Error& error) {
    // An exception of the caller's callback is uncaught like one of a timer's. (Node 20 would only warn about it
    // if it were left to propagate.) Without a value the environment is being terminated.
    const Napi::Value value = error.Value();
    if (!value.IsEmpty()) napi_fatal_exception(env, value);
  }
  if (is_closed() && ops_in_flight_ == 0) release(env);
}

void deliver_events(Napi::Env env, Napi::Function on_events, Attachment* attachment, void*) {
  // Without an environment the wake-up is only being discarded.
  if (static_cast<napi_env>(env) != nullptr) attachment->deliver(env, on_events);
}

void Attachment::detach_from_engine() {
  if (role_ == Role::control) {
    engine().set_control({});
    shared_->has_control = false;
  } else {
    unregister_engine(shared_->id);
    // Joins the engine's threads: no memory is touched and no callback runs after it.
    engine().close();
    leases_.clear();
    exports_.clear();
  }
  // The last side to let go ends the engine's descriptors now, not when the handle happens to be collected.
  shared_.reset();
}

void Attachment::close(Napi::Env env) {
  if (is_closed()) return;
  detach_from_engine();
  if (ops_in_flight_ == 0) release(env);
}

void Attachment::release(Napi::Env env) {
  if (is_released_) return;
  is_released_ = true;
  events_->shut();
  napi_remove_env_cleanup_hook(env, &on_environment_exit, this);
  wakeup_.Release();
}

void Attachment::on_environment_exit(void* data) {
  auto* attachment = static_cast<Attachment*>(data);
  if (!attachment->is_closed()) attachment->detach_from_engine();
  attachment->is_released_ = true;
  attachment->events_->shut();
  attachment->wakeup_.Abort();
}

}  // namespace pccl::node
