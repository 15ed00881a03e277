// The steps of expert parallelism for JavaScript: what travels where, and the rows on their way.
#pragma once

#include <napi.h>

namespace pccl::node {

// Arguments and results are those of interface Addon in packages/bindings/src/addon.ts.
Napi::Value address_copies(const Napi::CallbackInfo& info);
Napi::Value receive_copies(const Napi::CallbackInfo& info);
Napi::Value gather_rows(const Napi::CallbackInfo& info);
Napi::Value forward_lists(const Napi::CallbackInfo& info);
Napi::Value backward_lists(const Napi::CallbackInfo& info);
Napi::Value combine_rows(const Napi::CallbackInfo& info);
Napi::Value gate_gradients(const Napi::CallbackInfo& info);
Napi::Value add_floats(const Napi::CallbackInfo& info);

}  // namespace pccl::node
