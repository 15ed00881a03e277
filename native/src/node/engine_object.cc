#include "node/engine_object.h"

#include <utility>

#include "node/arguments.h"
#include "node/collective_call.h"
#include "node/errors.h"
#include "node/event_queue.h"

namespace pccl::node {

namespace {

Napi::Number number(Napi::Env env, std::uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

const char* op_state_name(OpState state) {
  switch (state) {
    case OpState::not_done:
      return "not-done";
    case OpState::done:
      return "done";
    case OpState::committed:
      return "committed";
    case OpState::aborted:
      return "aborted";
  }
  return "unknown";
}

std::string element(const char* list, std::uint32_t index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

}  // namespace

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceAccessor<&EngineObject::id>("id"),
                         InstanceAccessor<&EngineObject::port>("port"),
                         InstanceAccessor<&EngineObject::host_id>("hostId"),
                         InstanceMethod<&EngineObject::view>("view"),
                         InstanceMethod<&EngineObject::start>("start"),
                         InstanceMethod<&EngineObject::cancel>("cancel"),
                         InstanceMethod<&EngineObject::export_state>("exportState"),
                         InstanceMethod<&EngineObject::hashes>("hashes"),
                         InstanceMethod<&EngineObject::release_state>("releaseState"),
                         InstanceMethod<&EngineObject::fetch_state>("fetchState"),
                         InstanceMethod<&EngineObject::commit_state>("commitState"),
                         InstanceMethod<&EngineObject::changed_tensor>("changedTensor"),
                         InstanceMethod<&EngineObject::prepare>("prepare"),
                         InstanceMethod<&EngineObject::install>("install"),
                         InstanceMethod<&EngineObject::set_world>("setWorld"),
                         InstanceMethod<&EngineObject::abort_if_missing>("abortIfMissing"),
                         InstanceMethod<&EngineObject::probe>("probe"),
                         InstanceMethod<&EngineObject::close>("close"),
                     });
}

Napi::Object EngineObject::create(Napi::Env env, std::shared_ptr<Attachment> attachment) {
  return env.GetInstanceData<Environment>()->engine_class.New(
      {Napi::External<std::shared_ptr<Attachment>>::New(env, &attachment)});
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
  if (!info[0].IsExternal()) throw_invalid(info.Env(), "Engine: use createEngine or attachEngine, not `new`.");
  attachment_ = *info[0].As<Napi::External<std::shared_ptr<Attachment>>>().Data();
  id_ = attachment_->engine_id();
  port_ = attachment_->engine().port();
  host_id_ = attachment_->engine().host_id();
}

Engine& EngineObject::open_engine(Napi::Env env, const char* call) const {
  if (attachment_->is_closed()) {
    throw_error(env, {ErrorCode::closed, std::string(call) + ": this engine was closed.", std::nullopt});
  }
  return attachment_->engine();
}

Engine& EngineObject::open_engine(Napi::Env env, const char* call, Role role) const {
  if (attachment_->role() != role) {
    // Ops end with the environment that owns their buffers, so only the side that ends the engine may start them.
    throw_invalid(env, std::string(call) + (role == Role::control
                                                ? ": only the control side may call it; attachEngine gives one."
                                                : ": only the side that created the engine may call it."));
  }
  return open_engine(env, call);
}

Napi::Value EngineObject::id(const Napi::CallbackInfo& info) { return number(info.Env(), id_); }

Napi::Value EngineObject::port(const Napi::CallbackInfo& info) { return number(info.Env(), port_); }

Napi::Value EngineObject::host_id(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), host_id_);
}

Napi::Value EngineObject::view(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Engine& engine = open_engine(env, "view");
  return translate(env, [&]() -> Napi::Value {
    const std::optional<InstalledView> view = engine.view();
    if (!view) return env.Undefined();
    Napi::Object object = Napi::Object::New(env);
    object.Set("epoch", number(env, view->epoch));
    object.Set("ringEpoch", number(env, view->ring_epoch));
    object.Set("peerId", number(env, view->self));
    object.Set("rank", number(env, view->rank));
    object.Set("groupSize", number(env, view->group_size));
    object.Set("worldSize", number(env, view->world_size));
    Napi::Array members = Napi::Array::New(env, view->members.size());
    for (std::uint32_t i = 0; i < view->members.size(); ++i) members.Set(i, number(env, view->members[i]));
    object.Set("members", members);
    return object;
  });
}

Napi::Value EngineObject::start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "start", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    ReadCall read = read_collective_call(info[0]);
    if (!info[1].IsUndefined()) read.call.ring_epoch = read_integer(info[1], "start: ringEpoch", 1, safe_integer_max);
    Engine& engine = open_engine(env, "start", Role::owner);
    const OpId id = engine.start(read.call, attachment_->op_callback());
    attachment_->op_started(env, id, std::move(read.lease));
    return number(env, id);
  });
}

Napi::Value EngineObject::cancel(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Engine& engine = open_engine(env, "cancel", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    return Napi::Boolean::New(env, engine.cancel(read_integer(info[0], "cancel: id", 0, safe_integer_max)));
  });
}

Napi::Value EngineObject::export_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "exportState", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    const Napi::Array array = read_array(info[0], "exportState: tensors");
    // Names and arrays of all entries before the first pointer: reading a property can run the caller's code.
    std::vector<std::string> names;
    std::vector<Napi::Value> values;
    for (std::uint32_t i = 0; i < array.Length(); ++i) {
      const std::string which = element("exportState: tensors", i);
      const Napi::Object object = read_object(array.Get(i), which);
      names.push_back(read_string(object.Get("name"), which + ".name"));
      values.push_back(object.Get("data"));
    }
    Lease lease;
    std::vector<ExportTensor> tensors;
    for (std::uint32_t i = 0; i < values.size(); ++i) {
      const Tensor tensor = read_tensor(values[i], element("exportState: tensors", i) + ".data");
      tensors.push_back({names[i], tensor.data, tensor.bytes});
      lease.pin(values[i]);
    }
    Engine& engine = open_engine(env, "exportState", Role::owner);
    const OpId id = engine.export_state(std::move(tensors), attachment_->op_callback());
    attachment_->export_started(env, id, std::move(lease), std::move(names));
    return number(env, id);
  });
}

Napi::Value EngineObject::hashes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Engine& engine = open_engine(env, "hashes", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    const OpId id = read_integer(info[0], "hashes: exportId", 0, safe_integer_max);
    const std::vector<std::string>* names = attachment_->export_names(id);
    if (names == nullptr) throw_invalid(env, "hashes: there is no export " + std::to_string(id) + ".");
    const std::vector<Hash128> hashes = engine.hashes(id);
    Napi::Array array = Napi::Array::New(env, hashes.size());
    for (std::uint32_t i = 0; i < hashes.size(); ++i) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("name", names->at(i));
      object.Set("hash", hash_text(hashes[i]));
      array.Set(i, object);
    }
    return array;
  });
}

Napi::Value EngineObject::release_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Engine& engine = open_engine(env, "releaseState", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    const OpId id = read_integer(info[0], "releaseState: exportId", 0, safe_integer_max);
    if (attachment_->export_names(id) == nullptr) {
      throw_invalid(env, "releaseState: there is no export " + std::to_string(id) + ".");
    }
    const std::uint64_t served_bytes = engine.release_state(id);
    attachment_->end_export(id);
    return number(env, served_bytes);
  });
}

Napi::Value EngineObject::fetch_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "fetchState", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    const Napi::Object object = read_object(info[0], "fetchState: call");
    StateFetchCall call;
    call.export_id = read_integer(object.Get("exportId"), "fetchState: exportId", 0, safe_integer_max);
    call.share = static_cast<std::uint32_t>(read_integer(object.Get("share"), "fetchState: share", 0, UINT32_MAX));
    call.shares = static_cast<std::uint32_t>(read_integer(object.Get("shares"), "fetchState: shares", 1, UINT32_MAX));
    const Napi::Array targets = read_array(object.Get("targets"), "fetchState: targets");
    for (std::uint32_t i = 0; i < targets.Length(); ++i) {
      const std::string which = element("fetchState: targets", i);
      const Napi::Object target = read_object(targets.Get(i), which);
      call.targets.push_back(
          {static_cast<std::uint32_t>(read_integer(target.Get("tensor"), which + ".tensor", 0, UINT32_MAX)),
           read_hash(target.Get("hash"), which + ".hash")});
    }
    const Napi::Array sources = read_array(object.Get("sources"), "fetchState: sources");
    for (std::uint32_t i = 0; i < sources.Length(); ++i) {
      const std::string which = element("fetchState: sources", i);
      const Napi::Object source = read_object(sources.Get(i), which);
      call.sources.push_back({read_member(source, which), read_boolean(source.Get("complete"), which + ".complete")});
    }
    Engine& engine = open_engine(env, "fetchState", Role::owner);
    const OpId id = engine.fetch_state(std::move(call), attachment_->op_callback());
    attachment_->op_started(env, id, Lease());
    return number(env, id);
  });
}

Napi::Value EngineObject::commit_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Engine& engine = open_engine(env, "commitState", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    const OpId export_id = read_integer(info[0], "commitState: exportId", 0, safe_integer_max);
    if (attachment_->export_names(export_id) == nullptr) {
      throw_invalid(env, "commitState: there is no export " + std::to_string(export_id) + ".");
    }
    const OpId id = engine.commit_state(export_id, attachment_->op_callback());
    attachment_->commit_started(env, id, export_id);
    return number(env, id);
  });
}

Napi::Value EngineObject::changed_tensor(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Engine& engine = open_engine(env, "changedTensor", Role::owner);
  return translate(env, [&]() -> Napi::Value {
    const OpId id = read_integer(info[0], "changedTensor: exportId", 0, safe_integer_max);
    const std::string name = engine.changed_tensor(id);
    if (name.empty()) return env.Undefined();
    return Napi::String::New(env, name);
  });
}

Napi::Value EngineObject::prepare(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "prepare", Role::control);
  return translate(env, [&]() -> Napi::Value {
    const View view = read_view(info[0], "prepare: view");
    const auto timeout_ms = static_cast<std::uint32_t>(read_integer(info[1], "prepare: timeoutMs", 1, UINT32_MAX));
    const std::vector<OpReport> reports = open_engine(env, "prepare", Role::control).prepare(view, timeout_ms);
    Napi::Array array = Napi::Array::New(env, reports.size());
    for (std::uint32_t i = 0; i < reports.size(); ++i) {
      Napi::Object object = Napi::Object::New(env);
      set_op_key(env, object, reports[i].key);
      object.Set("state", op_state_name(reports[i].state));
      array.Set(i, object);
    }
    return array;
  });
}

Napi::Value EngineObject::install(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "install", Role::control);
  return translate(env, [&]() -> Napi::Value {
    const Epoch epoch = read_integer(info[0], "install: epoch", 0, safe_integer_max);
    const std::vector<Verdict> verdicts = read_verdicts(info[1], "install: verdicts");
    open_engine(env, "install", Role::control).install(epoch, verdicts);
    return env.Undefined();
  });
}

Napi::Value EngineObject::set_world(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "setWorld", Role::control);
  return translate(env, [&]() -> Napi::Value {
    const Epoch view_epoch = read_integer(info[0], "setWorld: viewEpoch", 0, safe_integer_max);
    const auto world_size = static_cast<std::uint32_t>(read_integer(info[1], "setWorld: worldSize", 1, UINT32_MAX));
    open_engine(env, "setWorld", Role::control).set_world(view_epoch, world_size);
    return env.Undefined();
  });
}

Napi::Value EngineObject::abort_if_missing(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "abortIfMissing", Role::control);
  return translate(env, [&]() -> Napi::Value {
    const Epoch epoch = read_integer(info[0], "abortIfMissing: epoch", 0, safe_integer_max);
    const OpKey key = read_op_key(read_object(info[1], "abortIfMissing: op"), "abortIfMissing: op");
    const PeerId peer = read_integer(info[2], "abortIfMissing: peerId", 0, safe_integer_max);
    const bool aborted = open_engine(env, "abortIfMissing", Role::control).abort_if_missing(epoch, key, peer);
    return Napi::Boolean::New(env, aborted);
  });
}

Napi::Value EngineObject::probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  open_engine(env, "probe", Role::control);
  return translate(env, [&]() -> Napi::Value {
    const std::uint64_t probe_id = read_integer(info[0], "probe: id", 0, safe_integer_max);
    const Member target = read_member(info[1], "probe: target");
    const std::string name = read_string(info[2], "probe: direction");
    if (name != "send" && name != "receive") throw_not(info[2], "probe: direction", "\"send\" or \"receive\"");
    const auto direction = name == "send" ? ProbeDirection::send : ProbeDirection::receive;
    open_engine(env, "probe", Role::control).probe(probe_id, target, direction);
    return env.Undefined();
  });
}

Napi::Value EngineObject::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    attachment_->close(env);
    return env.Undefined();
  });
}

}  // namespace pccl::node
