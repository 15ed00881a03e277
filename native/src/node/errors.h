// How an error of the engine becomes one of JavaScript: an Error with a `code` of the catalogue.
#pragma once

#include <napi.h>

#include <cstddef>
#include <exception>
#include <optional>
#include <string>

#include "pccl/engine.h"

namespace pccl::node {

inline constexpr std::size_t error_code_count = static_cast<std::size_t>(ErrorCode::non_finite_input) + 1;

Napi::Error error_of(Napi::Env env, const Error& error);
[[noreturn]] void throw_error(Napi::Env env, const Error& error);
[[noreturn]] void throw_invalid(Napi::Env env, const std::string& message);
// "WHAT must be EXPECTED, got a Uint8Array."
[[noreturn]] void throw_not(Napi::Value value, const std::string& what, const std::string& expected);

// A NativeError as events carry it: {code, message, peerId?, epoch?}.
Napi::Object error_object(Napi::Env env, const Error& error);

// Runs a call into the engine. Nothing but Napi::Error may leave a function that JavaScript called, and an
// exception that isn't the engine's own is a bug of ours, reported as such.
template <typename Call>
auto translate(Napi::Env env, Call&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const EngineError& error) {
    throw_error(env, error.error());
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw_error(env, {ErrorCode::internal, std::string("native code failed: ") + error.what() + ".", std::nullopt});
  }
}

}  // namespace pccl::node
