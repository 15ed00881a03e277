// JavaScript arguments as C++ values, or ERR_PCCL_INVALID_ARGUMENT. `what` begins the message and names the call
// and the argument, as in "prepare: view.epoch".
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pccl/engine.h"

namespace pccl::node {

// An integer in [min, max]; max is at most 2^53 - 1, beyond which a number is no longer exact.
std::uint64_t read_integer(Napi::Value value, const std::string& what, std::uint64_t min, std::uint64_t max);
inline constexpr std::uint64_t safe_integer_max = (std::uint64_t{1} << 53) - 1;

// A bigint in [0, 2^64).
std::uint64_t read_tag(Napi::Value value, const std::string& what);
bool read_boolean(Napi::Value value, const std::string& what);
std::string read_string(Napi::Value value, const std::string& what);
Napi::Object read_object(Napi::Value value, const std::string& what);
Napi::Array read_array(Napi::Value value, const std::string& what);
Napi::Function read_function(Napi::Value value, const std::string& what);

ReduceOp read_reduce_op(Napi::Value value, const std::string& what);
// 32 hex digits, most significant first.
Hash128 read_hash(Napi::Value value, const std::string& what);
// One that can be dialled.
Member read_member(Napi::Value value, const std::string& what);
View read_view(Napi::Value value, const std::string& what);
OpKey read_op_key(Napi::Object object, const std::string& what);
std::vector<Verdict> read_verdicts(Napi::Value value, const std::string& what);
EngineOptions read_engine_options(Napi::Value value, const std::string& what);

std::string hash_text(const Hash128& hash);

}  // namespace pccl::node
