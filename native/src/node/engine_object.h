// The Engine of addon.ts: checks arguments, pins buffers, and hands each call to the native engine.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "node/attachment.h"

namespace pccl::node {

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  // Per environment, once.
  static Napi::Function define(Napi::Env env);
  static Napi::Object create(Napi::Env env, std::shared_ptr<Attachment> attachment);

  // For ObjectWrap. JavaScript can reach it through `engine.constructor`, and gets an error.
  explicit EngineObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value id(const Napi::CallbackInfo& info);
  Napi::Value port(const Napi::CallbackInfo& info);
  Napi::Value host_id(const Napi::CallbackInfo& info);
  Napi::Value view(const Napi::CallbackInfo& info);
  Napi::Value start(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value export_state(const Napi::CallbackInfo& info);
  Napi::Value hashes(const Napi::CallbackInfo& info);
  Napi::Value release_state(const Napi::CallbackInfo& info);
  Napi::Value fetch_state(const Napi::CallbackInfo& info);
  Napi::Value commit_state(const Napi::CallbackInfo& info);
  Napi::Value changed_tensor(const Napi::CallbackInfo& info);
  Napi::Value prepare(const Napi::CallbackInfo& info);
  Napi::Value install(const Napi::CallbackInfo& info);
  Napi::Value set_world(const Napi::CallbackInfo& info);
  Napi::Value abort_if_missing(const Napi::CallbackInfo& info);
  Napi::Value probe(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // The engine, or an error if it is closed. Reading arguments can run the caller's code, which can close it, so
  // calls ask before, for the error, and again after.
  Engine& open_engine(Napi::Env env, const char* call) const;
  Engine& open_engine(Napi::Env env, const char* call, Role role) const;

  std::shared_ptr<Attachment> attachment_;
  std::uint32_t id_ = 0;
  std::uint16_t port_ = 0;
  std::string host_id_;
};

class ComputeThread;

// What one environment that loaded the addon owns.
struct Environment {
  Napi::FunctionReference engine_class;
  // Null until the first call that needs it; ends with the environment.
  ComputeThread* compute_thread = nullptr;
};

}  // namespace pccl::node
