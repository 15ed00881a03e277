// The arithmetic of outer steps for JavaScript.
#pragma once

#include <napi.h>

namespace pccl::node {

// Arguments and results are those of interface Addon in packages/bindings/src/addon.ts.
Napi::Value elementwise(const Napi::CallbackInfo& info);
Napi::Value digest(const Napi::CallbackInfo& info);
Napi::Value quantize_with_feedback(const Napi::CallbackInfo& info);
Napi::Value sparsify_with_feedback(const Napi::CallbackInfo& info);
Napi::Value add_sparse(const Napi::CallbackInfo& info);

}  // namespace pccl::node
