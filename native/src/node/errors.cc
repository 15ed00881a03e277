#include "node/errors.h"

namespace pccl::node {

void throw_error(Napi::Env env, const Error& error) {
  Napi::Error thrown = Napi::Error::New(env, error.message);
  thrown.Set("code", Napi::String::New(env, error_code_name(error.code)));
  if (error.peer) thrown.Set("peerId", Napi::Number::New(env, static_cast<double>(*error.peer)));
  throw thrown;
}

void throw_invalid(Napi::Env env, const std::string& message) {
  throw_error(env, {ErrorCode::invalid_argument, message, std::nullopt});
}

Napi::Object error_object(Napi::Env env, const Error& error) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", Napi::String::New(env, error_code_name(error.code)));
  object.Set("message", Napi::String::New(env, error.message));
  if (error.peer) object.Set("peerId", Napi::Number::New(env, static_cast<double>(*error.peer)));
  return object;
}

}  // namespace pccl::node
