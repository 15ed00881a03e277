// The experts of mixture-of-experts layers for JavaScript.
#pragma once

#include <napi.h>

namespace pccl::node {

// Arguments and results are those of interface Addon in packages/bindings/src/addon.ts.
Napi::Value expert_bytes(const Napi::CallbackInfo& info);
Napi::Value pack_expert(const Napi::CallbackInfo& info);
Napi::Value expert_forward(const Napi::CallbackInfo& info);
Napi::Value expert_backward(const Napi::CallbackInfo& info);

}  // namespace pccl::node
