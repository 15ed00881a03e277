#include "node/quantization.h"

#include <span>

#include "base/quantization.h"
#include "node/arguments.h"
#include "node/buffers.h"
#include "node/errors.h"
#include "quantize/layout.h"
#include "quantize/quantize.h"

namespace pccl::node {

namespace {

QuantizedFormat read_format(Napi::Value value, const std::string& what) {
  const std::string name = read_string(value, what);
  for (std::uint8_t number = 1; is_quantized_format(number); ++number) {
    if (name == quantized_format_name(static_cast<QuantizedFormat>(number))) return static_cast<QuantizedFormat>(number);
  }
  throw_not(value, what, "\"u8\", \"i8\", \"i4\", \"fp8\", \"bf16\" or \"f16\"");
}

// The second of two names.
bool read_choice(Napi::Value value, const std::string& what, const char* first, const char* second) {
  const std::string name = read_string(value, what);
  if (name != first && name != second) throw_not(value, what, std::string("\"") + first + "\" or \"" + second + "\"");
  return name == second;
}

std::span<float> read_floats(Napi::Value value, const std::string& what) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype != DType::f32) throw_not(value, what, "a Float32Array");
  return {static_cast<float*>(tensor.data), tensor.count};
}

// Which there has to be.
Quantization read_one(Napi::Value value, const std::string& what) {
  if (value.IsUndefined()) throw_not(value, what, "an object");
  return read_quantization(value, what);
}

}  // namespace

Quantization read_quantization(Napi::Value value, const std::string& what) {
  Quantization quantization;
  if (value.IsUndefined()) return quantization;
  const Napi::Object object = read_object(value, what);
  quantization.format = read_format(object.Get("format"), what + ".format");
  if (read_choice(object.Get("scheme"), what + ".scheme", "min-max", "zero-point")) {
    quantization.scheme = QuantizationScheme::zero_point;
  }
  quantization.block = static_cast<std::uint32_t>(read_integer(object.Get("blockSize"), what + ".blockSize",
                                                               quantization_block_min, quantization_block_max));
  if (read_choice(object.Get("rounding"), what + ".rounding", "nearest", "stochastic")) {
    quantization.rounding = QuantizationRounding::stochastic;
  }
  quantization.seed = read_tag(object.Get("seed"), what + ".seed");
  quantization.pass_non_finite = read_choice(object.Get("nonFinite"), what + ".nonFinite", "error", "pass");
  if (const char* const fault = quantization_fault(quantization)) throw_invalid(value.Env(), what + ": " + fault + ".");
  return quantization;
}

Napi::Value quantize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const Quantization quantization = read_one(info[1], "quantize: quantization");
    const std::span<const float> values = read_floats(info[0], "quantize: values");
    if (!quantization.pass_non_finite && !stays_finite(quantization, values)) {
      const char* const message = "quantize: values have NaN, an infinity, or a number too large for the format.";
      throw_error(env, {ErrorCode::non_finite_input, message, std::nullopt});
    }
    Napi::Uint8Array bytes = Napi::Uint8Array::New(env, quantized_bytes(quantization, values.size()));
    pccl::quantize(quantization, 0, 0, values, bytes.Data());
    return bytes;
  });
}

Napi::Value dequantize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const Quantization quantization = read_one(info[1], "dequantize: quantization");
    const Tensor bytes = read_tensor(info[0], "dequantize: bytes");
    if (bytes.dtype != DType::u8) throw_not(info[0], "dequantize: bytes", "a Uint8Array");
    const std::span<float> into = read_floats(info[2], "dequantize: into");
    const std::uint64_t expected = quantized_bytes(quantization, into.size());
    if (bytes.bytes != expected) {
      throw_invalid(env, "dequantize: " + std::to_string(into.size()) + " values take " + std::to_string(expected) +
                             " bytes in this quantization, and there are " + std::to_string(bytes.bytes) + ".");
    }
    if (!pccl::dequantize(quantization, {static_cast<const std::uint8_t*>(bytes.data), bytes.bytes}, into)) {
      throw_invalid(env, "dequantize: the bytes are none that this quantization gives.");
    }
    return env.Undefined();
  });
}

}  // namespace pccl::node
