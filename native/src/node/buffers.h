// Memory of JavaScript that native code reads and writes while an op runs.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pccl/engine.h"

namespace pccl::node {

struct Tensor {
  void* data = nullptr;
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
  DType dtype = DType::f32;
};

// The elements of a Float32Array, Float64Array or Int32Array over an ArrayBuffer or SharedArrayBuffer. Throws
// ERR_PCCL_INVALID_ARGUMENT on anything else, on a detached buffer, and on a resizable or growable one, whose
// bytes may go away while a view of it is still referenced. `what` begins the message, as in "allReduce: send".
Tensor read_tensor(Napi::Value value, const std::string& what);

// Keeps the arrays of one op alive until native code is through with them. A reference must be destroyed on its
// environment's own thread, so a Lease never leaves it.
class Lease {
 public:
  void pin(Napi::Value array) { arrays_.push_back(Napi::Persistent(array.As<Napi::Object>())); }

 private:
  std::vector<Napi::ObjectReference> arrays_;
};

}  // namespace pccl::node
