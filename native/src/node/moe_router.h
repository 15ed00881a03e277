// The routers of mixture-of-experts layers for JavaScript.
#pragma once

#include <napi.h>

namespace pccl::node {

// Arguments and results are those of interface Addon in packages/bindings/src/addon.ts.
Napi::Value project_router(const Napi::CallbackInfo& info);
Napi::Value project_router_gradient(const Napi::CallbackInfo& info);
Napi::Value route(const Napi::CallbackInfo& info);
Napi::Value route_gradient(const Napi::CallbackInfo& info);

}  // namespace pccl::node
