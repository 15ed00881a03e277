// The arithmetic of outer steps for JavaScript.
#pragma once

#include <napi.h>

namespace pccl::node {

// Arguments and results are those of interface Addon in packages/bindings/src/addon.ts.
Napi::Value elementwise(const Napi::CallbackInfo& info);
Napi::Value digest(const Napi::CallbackInfo& info);

}  // namespace pccl::node
