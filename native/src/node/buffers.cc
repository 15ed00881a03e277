#include "node/buffers.h"

#include <optional>
#include <utility>

#include "base/dtype.h"
#include "node/errors.h"
#include "node/page_memory.h"

namespace pccl::node {

namespace {

constexpr const char* expected_type =
    "a Float32Array, Float64Array, Int8Array, Uint8Array, Int16Array, Uint16Array, Int32Array, Uint32Array, "
    "BigInt64Array or BigUint64Array";

std::optional<DType> dtype_of(napi_typedarray_type type) {
  switch (type) {
    case napi_uint8_array:
      return DType::u8;
    case napi_int8_array:
      return DType::i8;
    case napi_uint16_array:
      return DType::u16;
    case napi_int16_array:
      return DType::i16;
    case napi_uint32_array:
      return DType::u32;
    case napi_int32_array:
      return DType::i32;
    case napi_biguint64_array:
      return DType::u64;
    case napi_bigint64_array:
      return DType::i64;
    case napi_float32_array:
      return DType::f32;
    case napi_float64_array:
      return DType::f64;
    default:
      return std::nullopt;
  }
}

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
  const std::optional<DType> dtype = dtype_of(type);
  if (!dtype) throw_not(value, what, expected_type);

  bool is_detached = false;
  if (napi_is_detached_arraybuffer(env, buffer, &is_detached) == napi_ok && is_detached) {
    throw_invalid(env, what + " has a detached buffer: it was transferred to another thread.");
  }
  if (can_change_size(Napi::Object(env, buffer))) {
    throw_invalid(env, what + " has a resizable buffer, which could shrink while the op runs; give it a fixed length.");
  }
  return {data, length, length * element_bytes(*dtype), *dtype};
}

DType read_dtype(Napi::Value value, const std::string& what, const Tensor& tensor) {
  if (value.IsUndefined()) return tensor.dtype;
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == dtype_name(tensor.dtype)) return tensor.dtype;
  if (tensor.dtype != DType::u16) {
    throw_not(value, what, std::string("\"") + dtype_name(tensor.dtype) + "\", which the array holds");
  }
  if (name == dtype_name(DType::f16)) return DType::f16;
  if (name == dtype_name(DType::bf16)) return DType::bf16;
  throw_not(value, what, "\"u16\", \"f16\" or \"bf16\", which a Uint16Array can hold");
}

void Lease::pin(Napi::Value array) {
  arrays_.push_back(Napi::Persistent(array.As<Napi::Object>()));
  void* data = nullptr;
  napi_get_typedarray_info(array.Env(), array, nullptr, nullptr, &data, nullptr, nullptr);
  if (std::shared_ptr<const void> pages = hold_pages(data)) pages_.push_back(std::move(pages));
}

}  // namespace pccl::node
