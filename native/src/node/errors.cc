#include "node/errors.h"

namespace pccl::node {

namespace {

const char* typed_array_name(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array:
      return "an Int8Array";
    case napi_uint8_array:
      return "a Uint8Array";
    case napi_uint8_clamped_array:
      return "a Uint8ClampedArray";
    case napi_int16_array:
      return "an Int16Array";
    case napi_uint16_array:
      return "a Uint16Array";
    case napi_int32_array:
      return "an Int32Array";
    case napi_uint32_array:
      return "a Uint32Array";
    case napi_float32_array:
      return "a Float32Array";
    case napi_float64_array:
      return "a Float64Array";
    case napi_bigint64_array:
      return "a BigInt64Array";
    case napi_biguint64_array:
      return "a BigUint64Array";
    default:
      return "a typed array of another kind";
  }
}

// A value as a short word for a message; no conversion that could run the caller's code.
std::string describe(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
    case napi_number:
      return value.ToString();
    case napi_string:
      return '"' + value.ToString().Utf8Value().substr(0, 80) + '"';
    case napi_symbol:
      return "a symbol";
    case napi_bigint:
      return "a bigint";
    case napi_function:
      return "a function";
    default:
      if (value.IsTypedArray()) return typed_array_name(value.As<Napi::TypedArray>().TypedArrayType());
      if (value.IsArray()) return "an array";
      if (value.IsDataView()) return "a DataView";
      return value.IsArrayBuffer() ? "an ArrayBuffer" : "an object";
  }
}

}  // namespace

Napi::Error error_of(Napi::Env env, const Error& error) {
  Napi::Error thrown = Napi::Error::New(env, error.message);
  thrown.Set("code", Napi::String::New(env, error_code_name(error.code)));
  if (error.peer) thrown.Set("peerId", Napi::Number::New(env, static_cast<double>(*error.peer)));
  return thrown;
}

void throw_error(Napi::Env env, const Error& error) { throw error_of(env, error); }

void throw_invalid(Napi::Env env, const std::string& message) {
  throw_error(env, {ErrorCode::invalid_argument, message, std::nullopt});
}

void throw_not(Napi::Value value, const std::string& what, const std::string& expected) {
  throw_invalid(value.Env(), what + " must be " + expected + ", got " + describe(value) + ".");
}

Napi::Object error_object(Napi::Env env, const Error& error) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", Napi::String::New(env, error_code_name(error.code)));
  object.Set("message", Napi::String::New(env, error.message));
  if (error.peer) object.Set("peerId", Napi::Number::New(env, static_cast<double>(*error.peer)));
  if (error.epoch) object.Set("epoch", Napi::Number::New(env, static_cast<double>(*error.epoch)));
  return object;
}

}  // namespace pccl::node
