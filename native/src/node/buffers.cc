#include "node/buffers.h"

#include "base/dtype.h"
#include "node/errors.h"

namespace pccl::node {

namespace {

constexpr const char* expected_type = "a Float32Array, Float64Array or Int32Array";

// Both properties are inherited getters; a plain buffer answers false, and an older runtime undefined.
bool can_change_size(Napi::Object buffer) {
  return buffer.Get("resizable").ToBoolean() || buffer.Get("growable").ToBoolean();
}

}  // namespace

Tensor read_tensor(Napi::Value value, const std::string& what) {
  const Napi::Env env = value.Env();
  if (!value.IsTypedArray()) throw_not(value, what, expected_type);

  napi_typedarray_type type{};
  std::size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, &buffer, nullptr) != napi_ok) {
    throw Napi::Error::New(env);
  }
  Tensor tensor{data, length, 0, DType::f32};
  switch (type) {
    case napi_float32_array:
      break;
    case napi_float64_array:
      tensor.dtype = DType::f64;
      break;
    case napi_int32_array:
      tensor.dtype = DType::i32;
      break;
    default:
      throw_not(value, what, expected_type);
  }
  tensor.bytes = tensor.count * element_bytes(tensor.dtype);

  bool is_detached = false;
  if (napi_is_detached_arraybuffer(env, buffer, &is_detached) == napi_ok && is_detached) {
    throw_invalid(env, what + " has a detached buffer: it was transferred to another thread.");
  }
  if (can_change_size(Napi::Object(env, buffer))) {
    throw_invalid(env, what + " has a resizable buffer, which could shrink while the op runs; give it a fixed length.");
  }
  return tensor;
}

}  // namespace pccl::node
