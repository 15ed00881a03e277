#include "node/moe_router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "moe/ffn/activation.h"
#include "moe/planner.h"
#include "moe/router.h"
#include "moe/router_projection.h"
#include "node/arguments.h"
#include "node/buffers.h"
#include "node/errors.h"
#include "node/moe_arguments.h"

namespace pccl::node {

namespace {

float read_float(Napi::Value value, const std::string& what) {
  if (!value.IsNumber()) throw_not(value, what, "a number");
  return value.As<Napi::Number>().FloatValue();
}

std::uint32_t read_count(Napi::Value value, const std::string& what) {
  return static_cast<std::uint32_t>(read_integer(value, what, 1, moe::experts_max));
}

moe::RouterOptions read_router_options(Napi::Value value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  const auto field = [&](const char* name) { return what + "." + name; };
  moe::RouterOptions options;
  options.experts = read_count(object.Get("experts"), field("experts"));
  options.slots_max = read_count(object.Get("slotsMax"), field("slotsMax"));
  const std::string score = read_string(object.Get("score"), field("score"));
  if (score == "sigmoid") {
    options.score = moe::RouterScore::sigmoid;
  } else if (score != "softmax") {
    throw_not(object.Get("score"), field("score"), "\"softmax\" or \"sigmoid\"");
  }
  options.renormalize = read_boolean(object.Get("renormalize"), field("renormalize"));
  options.scale = read_float(object.Get("scale"), field("scale"));
  options.probability_min = read_float(object.Get("probabilityMin"), field("probabilityMin"));
  options.groups = read_count(object.Get("groups"), field("groups"));
  options.groups_kept = read_count(object.Get("groupsKept"), field("groupsKept"));
  options.masked_score = read_float(object.Get("maskedScore"), field("maskedScore"));
  const std::span<const float> correction = read_floats(object.Get("correction"), field("correction"));
  options.correction.assign(correction.begin(), correction.end());
  return options;
}

moe::Routing read_routing(Napi::Value value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  return {read_indices(object.Get("firstSlot"), what + ".firstSlot"),
          read_indices(object.Get("experts"), what + ".experts"), {}};
}

// Of a Float32Array, or of bf16 in a Uint16Array, which `widened` then holds.
std::span<const float> read_tokens(Napi::Value value, const std::string& what, std::vector<float>& widened) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype == DType::f32) return {static_cast<const float*>(tensor.data), tensor.count};
  if (tensor.dtype != DType::u16) throw_not(value, what, "a Float32Array, or bf16 in a Uint16Array");
  widened.resize(tensor.count);
  moe::widen_bf16(static_cast<const std::uint16_t*>(tensor.data), tensor.count, widened.data());
  return widened;
}

Napi::Value floats(Napi::Env env, const std::vector<float>& values) {
  return typed_array<Napi::Float32Array>(env, values);
}

std::size_t read_experts(Napi::Value value, const std::string& call) {
  return read_integer(value, call + ": experts", 1, moe::experts_max);
}

}  // namespace

Napi::Value project_router(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "projectRouter";
    std::vector<float> widened;
    const std::span<const float> x = read_tokens(info[0], call + ": x", widened);
    return floats(env, moe::project_router(x, read_floats(info[1], call + ": weight"),
                                           read_floats(info[2], call + ": bias"), read_experts(info[3], call)));
  });
}

Napi::Value project_router_gradient(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "projectRouterGradient";
    std::vector<float> widened;
    const moe::ProjectionGradient gradient = moe::project_router_gradient(
        read_tokens(info[0], call + ": x", widened), read_floats(info[1], call + ": weight"),
        read_floats(info[2], call + ": logitGradients"), read_experts(info[3], call));
    Napi::Object object = Napi::Object::New(env);
    object.Set("x", floats(env, gradient.x));
    object.Set("weight", floats(env, gradient.weight));
    object.Set("bias", floats(env, gradient.bias));
    return object;
  });
}

Napi::Value route(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const moe::RouterOptions options = read_router_options(info[0], "route: options");
    const std::span<const float> logits = read_floats(info[1], "route: logits");
    const std::size_t slots_max = logits.size() / options.experts * options.slots_max;
    if (slots_max > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      throw_invalid(env, "route: a batch may take 2^31 - 1 slots at most, and this one " + std::to_string(slots_max) +
                             "; route it in parts.");
    }
    const moe::Routing routing = moe::route(options, logits);
    Napi::Object object = Napi::Object::New(env);
    object.Set("firstSlot", typed_array<Napi::Int32Array>(env, routing.first_slot));
    object.Set("experts", typed_array<Napi::Int32Array>(env, routing.experts));
    object.Set("gates", floats(env, routing.gates));
    return object;
  });
}

Napi::Value route_gradient(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "routeGradient";
    return floats(env, moe::route_gradient(read_router_options(info[0], call + ": options"),
                                           read_floats(info[1], call + ": logits"),
                                           read_routing(info[2], call + ": routing"),
                                           read_floats(info[3], call + ": gateGradients")));
  });
}

}  // namespace pccl::node
