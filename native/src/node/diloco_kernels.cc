#include "node/diloco_kernels.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "diloco/elementwise.h"
#include "diloco/feedback.h"
#include "hash/hash_tree.h"
#include "node/arguments.h"
#include "node/buffers.h"
#include "node/errors.h"
#include "node/compute_thread.h"
#include "node/quantization.h"

namespace pccl::node {

namespace {

Tensor read_pinned(Napi::Value value, const std::string& what, DType dtype, const char* type, Lease& lease) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype != dtype) throw_not(value, what, type);
  lease.pin(value);
  return tensor;
}

std::span<float> read_floats(Napi::Value value, const std::string& what, std::size_t count, Lease& lease) {
  const Tensor tensor = read_pinned(value, what, DType::f32, "a Float32Array", lease);
  if (tensor.count != count) throw_invalid(value.Env(), what + " must have " + std::to_string(count) + " elements.");
  return {static_cast<float*>(tensor.data), count};
}

std::span<float> read_floats(Napi::Value value, const std::string& what, Lease& lease) {
  return read_floats(value, what, read_tensor(value, what).count, lease);
}

std::span<std::uint8_t> read_sparse(Napi::Value value, const std::string& what, std::size_t bytes, Lease& lease) {
  const Tensor tensor = read_pinned(value, what, DType::u8, "a Uint8Array", lease);
  if (tensor.count != bytes) throw_invalid(value.Env(), what + " must have " + std::to_string(bytes) + " bytes.");
  return {static_cast<std::uint8_t*>(tensor.data), bytes};
}

float read_float(Napi::Value value, const std::string& what) {
  if (!value.IsNumber()) throw_not(value, what, "a number");
  return value.As<Napi::Number>().FloatValue();
}

std::size_t read_keep(Napi::Value value, const std::string& call) {
  return read_integer(value, call + ": keep", 1, diloco::sparse_chunk);
}

// Elements that a thread goes through before it looks whether the environment ends.
constexpr std::size_t piece = std::size_t{1} << 20;

}  // namespace

Napi::Value elementwise(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "elementwise";
    const std::string name = read_string(info[0], call + ": kernel");
    const std::optional<diloco::Signature> signature = diloco::find_kernel(name);
    if (!signature) throw_not(info[0], call + ": kernel", "the name of a kernel");
    const Napi::Array arrays = read_array(info[1], call + ": arrays");
    const Napi::Array factors = read_array(info[2], call + ": factors");
    if (arrays.Length() != signature->arrays || factors.Length() != signature->factors) {
      throw_invalid(env, call + ": " + name + " has " + std::to_string(signature->arrays) + " arrays and " +
                             std::to_string(signature->factors) + " factors, got " +
                             std::to_string(arrays.Length()) + " and " + std::to_string(factors.Length()) + ".");
    }
    Lease lease;
    diloco::Operands operands;
    for (std::uint32_t i = 0; i < arrays.Length(); ++i) {
      const std::string what = call + ": arrays[" + std::to_string(i) + "]";
      const Tensor tensor = read_pinned(arrays.Get(i), what, DType::f32, "a Float32Array", lease);
      if (i > 0 && tensor.count != operands.count) {
        throw_invalid(env, what + " has " + std::to_string(tensor.count) + " elements, and arrays[0] " +
                               std::to_string(operands.count) + ".");
      }
      operands.count = tensor.count;
      operands.arrays[i] = static_cast<float*>(tensor.data);
    }
    for (std::uint32_t i = 0; i < factors.Length(); ++i) {
      operands.factors[i] = read_float(factors.Get(i), call + ": factors[" + std::to_string(i) + "]");
    }
    double* sum = nullptr;
    if (!info[3].IsUndefined()) {
      const Tensor into = read_pinned(info[3], call + ": sum", DType::f64, "a Float64Array", lease);
      if (into.count != 1) throw_invalid(env, call + ": sum must have one element.");
      sum = static_cast<double*>(into.data);
    }
    const auto work = [kernel = signature->kernel, operands, sum](moe::RoutedWorkspace&,
                                                                   const std::atomic<bool>& stopped) {
      double total = 0;
      for (std::size_t start = 0; start < operands.count && !stopped; start += piece) {
        diloco::Operands part = operands;
        part.count = std::min(piece, operands.count - start);
        for (float*& array : part.arrays) {
          if (array != nullptr) array += start;
        }
        total += diloco::run(kernel, part);
      }
      if (sum != nullptr) *sum = total;
    };
    return ComputeThread::of(env).start(env, call, std::move(lease), work);
  });
}

Napi::Value digest(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "digest";
    const Napi::Array arrays = read_array(info[0], call + ": arrays");
    Lease lease;
    std::vector<std::span<const std::byte>> parts;
    for (std::uint32_t i = 0; i < arrays.Length(); ++i) {
      const Napi::Value array = arrays.Get(i);
      const Tensor tensor = read_tensor(array, call + ": arrays[" + std::to_string(i) + "]");
      lease.pin(array);
      parts.emplace_back(static_cast<const std::byte*>(tensor.data), tensor.bytes);
    }
    const Tensor into = read_pinned(info[1], call + ": into", DType::u8, "a Uint8Array", lease);
    if (into.count != sizeof(Hash128) * parts.size()) {
      throw_invalid(env, call + ": into must have 16 bytes for each array.");
    }
    const auto work = [parts, to = static_cast<std::byte*>(into.data)](moe::RoutedWorkspace&,
                                                                        const std::atomic<bool>& stopped) {
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const std::optional<Hash128> hash = tree_root(parts[i], stopped);
        if (!hash) return;
        std::memcpy(to + i * sizeof(Hash128), hash->data(), sizeof(Hash128));
      }
    };
    return ComputeThread::of(env).start(env, call, std::move(lease), work);
  });
}

Napi::Value quantize_with_feedback(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "quantizeWithFeedback";
    Lease lease;
    const std::span<float> values = read_floats(info[0], call + ": values", lease);
    const std::span<float> error = read_floats(info[1], call + ": error", values.size(), lease);
    const float decay = read_float(info[2], call + ": decay");
    const Quantization quantization = read_quantization(read_object(info[3], call + ": quantization"), call);
    const auto work = [=](moe::RoutedWorkspace&, const std::atomic<bool>&) {
      diloco::quantize_with_feedback(quantization, decay, values, error);
    };
    return ComputeThread::of(env).start(env, call, std::move(lease), work);
  });
}

Napi::Value sparsify_with_feedback(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "sparsifyWithFeedback";
    Lease lease;
    const std::span<float> values = read_floats(info[0], call + ": values", lease);
    const std::span<float> error = read_floats(info[1], call + ": error", values.size(), lease);
    const float decay = read_float(info[2], call + ": decay");
    const std::size_t keep = read_keep(info[3], call);
    const std::size_t bytes = diloco::sparse_bytes(values.size(), keep);
    const std::span<std::uint8_t> into = read_sparse(info[4], call + ": into", bytes, lease);
    const auto work = [=](moe::RoutedWorkspace&, const std::atomic<bool>&) {
      diloco::sparsify_with_feedback(keep, decay, values, error, into);
    };
    return ComputeThread::of(env).start(env, call, std::move(lease), work);
  });
}

Napi::Value add_sparse(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "addSparse";
    Lease lease;
    const std::size_t keep = read_keep(info[1], call);
    const float factor = read_float(info[2], call + ": factor");
    const std::span<float> sum = read_floats(info[3], call + ": sum", lease);
    const std::size_t size = diloco::sparse_bytes(sum.size(), keep);
    const std::span<std::uint8_t> bytes = read_sparse(info[0], call + ": bytes", size, lease);
    const Tensor valid = read_pinned(info[4], call + ": valid", DType::u8, "a Uint8Array", lease);
    if (valid.count != 1) throw_invalid(env, call + ": valid must have one element.");
    const auto work = [=, flag = static_cast<std::uint8_t*>(valid.data)](moe::RoutedWorkspace&,
                                                                          const std::atomic<bool>&) {
      *flag = diloco::add_sparse(bytes, keep, factor, sum) ? 1 : 0;
    };
    return ComputeThread::of(env).start(env, call, std::move(lease), work);
  });
}

}  // namespace pccl::node
