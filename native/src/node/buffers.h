// Memory of JavaScript that native code reads and writes while an op runs.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
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

// The elements of a typed array of integers or floating-point numbers over an ArrayBuffer or SharedArrayBuffer; a
// Uint16Array's are u16. Throws ERR_PCCL_INVALID_ARGUMENT on anything else, Uint8ClampedArray too, on a detached
// buffer, and on a resizable or growable one, whose bytes may go away while a view of it is still referenced. `what`
// begins the message, as in "allReduce: send".
Tensor read_tensor(Napi::Value value, const std::string& what);

// The name of a dtype that the tensor's elements can be taken for, or undefined for its own: only a Uint16Array can
// hold something else, f16 or bf16. `what` as in "allReduce: dtype".
DType read_dtype(Napi::Value value, const std::string& what, const Tensor& tensor);

// Keeps the arrays of one op alive until native code is through with them. A reference must be destroyed on its
// environment's own thread, so a Lease never leaves it.
class Lease {
 public:
  void pin(Napi::Value array);
  // All of it was given by allocate.
  bool is_in_pages() const { return pages_.size() == arrays_.size(); }

 private:
  std::vector<Napi::ObjectReference> arrays_;
  std::vector<std::shared_ptr<const void>> pages_;
};

}  // namespace pccl::node
