// Quantizations for JavaScript: of a call's bytes on the wire, and of an array in memory.
#pragma once

#include <napi.h>

#include <string>

#include "pccl/quantization.h"

namespace pccl::node {

// The Quantization of addon.ts, or undefined for none. ERR_PCCL_INVALID_ARGUMENT on anything else.
Quantization read_quantization(Napi::Value value, const std::string& what);

// Arguments and results are those of interface Addon in addon.ts.
Napi::Value quantize(const Napi::CallbackInfo& info);
Napi::Value dequantize(const Napi::CallbackInfo& info);

}  // namespace pccl::node
