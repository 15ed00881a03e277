#include "node/expert_arrays.h"

#include <algorithm>

#include "node/arguments.h"
#include "node/errors.h"

namespace pccl::node {

namespace {

constexpr std::size_t packed_alignment = 64;

}  // namespace

moe::ExpertShape read_expert_shape(Napi::Value value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  const auto one_of = [&](const char* name, const char* first, const char* second) {
    const Napi::Value field = object.Get(name);
    const std::string text = field.IsString() ? field.As<Napi::String>().Utf8Value() : "";
    if (text != first && text != second) {
      throw_not(field, what + "." + name, std::string("\"") + first + "\" or \"" + second + "\"");
    }
    return text == first;
  };
  const auto size = [&](const char* name) {
    return static_cast<std::size_t>(read_integer(object.Get(name), what + "." + name, 1, moe::expert_size_max));
  };
  moe::ExpertShape shape;
  shape.activation = one_of("kind", "swiglu", "gpt-oss") ? moe::Activation::swiglu : moe::Activation::gpt_oss;
  shape.dtype = one_of("dtype", "f32", "bf16") ? DType::f32 : DType::bf16;
  shape.hidden = size("hidden");
  shape.inner = size("inner");
  return shape;
}

std::byte* ExpertArrays::read(Napi::Value value, const std::string& what, DType dtype, std::uint64_t count, Use use,
                              std::size_t tensor_index) {
  const Tensor tensor = read_tensor(value, what);
  const DType carrier = dtype == DType::bf16 ? DType::u16 : dtype;
  if (tensor.dtype != carrier || tensor.count != count) {
    const char* const type = carrier == DType::f32 ? "a Float32Array of " : "a Uint16Array of ";
    const std::string expected = type + std::to_string(count) + " elements";
    if (tensor.dtype == carrier) {
      throw_invalid(value.Env(), what + " must be " + expected + ", got " + std::to_string(tensor.count) + ".");
    }
    throw_not(value, what, expected);
  }
  return add(value, what, tensor, use, tensor_index);
}

std::byte* ExpertArrays::read_packed(Napi::Value value, const std::string& what, const moe::ExpertShape& shape,
                                     bool trains, Use use) {
  const Tensor tensor = read_tensor(value, what);
  const moe::ExpertLayout layout(shape);
  if (tensor.dtype != DType::u8) throw_not(value, what, "a Uint8Array");
  if (tensor.bytes != layout.training_bytes && (trains || tensor.bytes != layout.inference_bytes)) {
    const std::string smaller = trains ? "" : " or " + std::to_string(layout.inference_bytes);
    throw_invalid(value.Env(), what + " must be an expert of this shape, packed" +
                                   (trains ? " for training, of " : ", of ") + std::to_string(layout.training_bytes) +
                                   smaller + " bytes, got " + std::to_string(tensor.bytes) + ".");
  }
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % packed_alignment != 0) {
    throw_invalid(value.Env(), what + " must begin at a multiple of 64 bytes in memory, as allocate's buffers do.");
  }
  return add(value, what, tensor, use, 0);
}

void ExpertArrays::require_separate(Napi::Env env) {
  std::sort(reads_.begin(), reads_.end(), [](const Read& a, const Read& b) { return a.begin < b.begin; });
  // Of those before: the one, and the output, that reach furthest.
  const Read* any = nullptr;
  const Read* output = nullptr;
  for (const Read& read : reads_) {
    // An expert that several lists of tokens go to has one gradient, to which each adds.
    if (output != nullptr && read.is_same_sum(*output)) continue;
    const bool is_output = read.use != Use::input;
    const Read* const before = is_output ? any : output;
    if (before != nullptr && read.begin < before->end) {
      throw_invalid(env, read.what + " shares memory with " + before->what + "; give it its own.");
    }
    if (any == nullptr || read.end > any->end) any = &read;
    if (is_output && (output == nullptr || read.end > output->end)) output = &read;
  }
}

std::byte* ExpertArrays::add(Napi::Value value, const std::string& what, const Tensor& tensor, Use use,
                             std::size_t tensor_index) {
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (tensor.bytes > 0) reads_.push_back({what, begin, begin + tensor.bytes, use, tensor_index});
  lease_.pin(value);
  return static_cast<std::byte*>(tensor.data);
}

}  // namespace pccl::node
