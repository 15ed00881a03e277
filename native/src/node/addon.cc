// The addon's entry: runs once in every environment (the main thread, each worker) that loads it.
#include <napi.h>

#include "node/arguments.h"
#include "node/diloco_kernels.h"
#include "node/engine_object.h"
#include "node/engine_registry.h"
#include "node/errors.h"
#include "node/moe_experts.h"
#include "node/moe_planner.h"
#include "node/moe_router.h"
#include "node/moe_step.h"
#include "node/page_memory.h"
#include "node/quantization.h"

namespace pccl::node {

namespace {

// Raised when the surface in packages/bindings/src/addon.ts changes; load.ts has the same number.
constexpr int abi_version = 5;

Napi::Value create_engine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const EngineOptions options = read_engine_options(info[0], "createEngine: options");
    const Napi::Function on_events = read_function(info[1], "createEngine: onEvents");
    std::shared_ptr<SharedEngine> shared = register_engine(Engine::create(options));
    return EngineObject::create(env, Attachment::create(env, std::move(shared), Role::owner, on_events));
  });
}

Napi::Value attach_engine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const auto id = static_cast<std::uint32_t>(read_integer(info[0], "attachEngine: id", 1, UINT32_MAX));
    const Napi::Function on_events = read_function(info[1], "attachEngine: onEvents");
    std::shared_ptr<SharedEngine> shared = find_engine(id);
    const std::string engine = "engine " + std::to_string(id);
    if (shared == nullptr) {
      throw_error(env, {ErrorCode::closed, "attachEngine: " + engine + " isn't open in this process.", std::nullopt});
    }
    if (shared->has_control.exchange(true)) {
      throw_invalid(env, "attachEngine: " + engine + " already has a control side; close that one first.");
    }
    return EngineObject::create(env, Attachment::create(env, std::move(shared), Role::control, on_events));
  });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment;
  environment->engine_class = Napi::Persistent(EngineObject::define(env));
  env.SetInstanceData(environment);

  Napi::Array codes = Napi::Array::New(env, error_code_count);
  for (std::uint32_t i = 0; i < error_code_count; ++i) codes.Set(i, error_code_name(static_cast<ErrorCode>(i)));
  exports.Set("abiVersion", Napi::Number::New(env, abi_version));
  exports.Set("errorCodes", codes);
  exports.Set("createEngine", Napi::Function::New<create_engine>(env, "createEngine"));
  exports.Set("attachEngine", Napi::Function::New<attach_engine>(env, "attachEngine"));
  exports.Set("allocate", Napi::Function::New<allocate>(env, "allocate"));
  exports.Set("allocateShared", Napi::Function::New<allocate_shared>(env, "allocateShared"));
  exports.Set("mapShared", Napi::Function::New<map_shared>(env, "mapShared"));
  exports.Set("elementwise", Napi::Function::New<elementwise>(env, "elementwise"));
  exports.Set("digest", Napi::Function::New<digest>(env, "digest"));
  exports.Set("quantizeWithFeedback", Napi::Function::New<quantize_with_feedback>(env, "quantizeWithFeedback"));
  exports.Set("sparsifyWithFeedback", Napi::Function::New<sparsify_with_feedback>(env, "sparsifyWithFeedback"));
  exports.Set("addSparse", Napi::Function::New<add_sparse>(env, "addSparse"));
  exports.Set("quantize", Napi::Function::New<quantize>(env, "quantize"));
  exports.Set("dequantize", Napi::Function::New<dequantize>(env, "dequantize"));
  exports.Set("planExperts", Napi::Function::New<plan_experts>(env, "planExperts"));
  exports.Set("projectRouter", Napi::Function::New<project_router>(env, "projectRouter"));
  exports.Set("projectRouterGradient", Napi::Function::New<project_router_gradient>(env, "projectRouterGradient"));
  exports.Set("route", Napi::Function::New<route>(env, "route"));
  exports.Set("routeGradient", Napi::Function::New<route_gradient>(env, "routeGradient"));
  exports.Set("expertBytes", Napi::Function::New<expert_bytes>(env, "expertBytes"));
  exports.Set("packExpert", Napi::Function::New<pack_expert>(env, "packExpert"));
  exports.Set("expertForward", Napi::Function::New<expert_forward>(env, "expertForward"));
  exports.Set("expertBackward", Napi::Function::New<expert_backward>(env, "expertBackward"));
  exports.Set("addressCopies", Napi::Function::New<address_copies>(env, "addressCopies"));
  exports.Set("receiveCopies", Napi::Function::New<receive_copies>(env, "receiveCopies"));
  exports.Set("gatherRows", Napi::Function::New<gather_rows>(env, "gatherRows"));
  exports.Set("forwardLists", Napi::Function::New<forward_lists>(env, "forwardLists"));
  exports.Set("backwardLists", Napi::Function::New<backward_lists>(env, "backwardLists"));
  exports.Set("combineRows", Napi::Function::New<combine_rows>(env, "combineRows"));
  exports.Set("gateGradients", Napi::Function::New<gate_gradients>(env, "gateGradients"));
  exports.Set("addFloats", Napi::Function::New<add_floats>(env, "addFloats"));
  return exports;
}

}  // namespace

}  // namespace pccl::node

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return pccl::node::init(env, exports); }
NODE_API_MODULE(pccl, init_addon)
