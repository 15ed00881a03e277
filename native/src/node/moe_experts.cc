#include "node/moe_experts.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "moe/ffn/expert_pass.h"
#include "node/arguments.h"
#include "node/errors.h"
#include "node/expert_arrays.h"
#include "node/compute_thread.h"

namespace pccl::node {

namespace {

using Use = ExpertArrays::Use;

constexpr std::uint64_t tokens_max = std::uint64_t{1} << 31;

// The lists of tokens that x and all else of a call consist of, one expert each.
struct List {
  std::uint64_t tokens = 0;
  const std::byte* packed = nullptr;
  std::uint64_t first_position = 0;
  std::vector<float*> gradients;
};

std::vector<List> read_lists(Napi::Value value, const std::string& what, const moe::ExpertShape& shape, bool trains,
                             ExpertArrays& arrays) {
  const Napi::Array array = read_array(value, what);
  const std::vector<moe::ExpertTensor> tensors = moe::expert_tensors(shape);
  std::vector<List> lists;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const std::string here = what + "[" + std::to_string(i) + "]";
    const Napi::Object object = read_object(array.Get(i), here);
    List list;
    list.tokens = read_integer(object.Get("tokens"), here + ".tokens", 0, tokens_max);
    list.packed = arrays.read_packed(object.Get("weights"), here + ".weights", shape, trains, Use::input);
    if (trains) {
      list.first_position = read_integer(object.Get("firstPosition"), here + ".firstPosition", 0, safe_integer_max);
      const Napi::Array gradients = read_array(object.Get("gradients"), here + ".gradients");
      if (gradients.Length() != tensors.size()) {
        throw_invalid(value.Env(), here + ".gradients must be " + std::to_string(tensors.size()) + " arrays.");
      }
      for (std::uint32_t j = 0; j < gradients.Length(); ++j) {
        std::byte* const gradient = arrays.read(gradients.Get(j), here + ".gradients." + tensors[j].name, DType::f32,
                                                tensors[j].elements, Use::sum, j);
        list.gradients.push_back(reinterpret_cast<float*>(gradient));
      }
    }
    lists.push_back(std::move(list));
  }
  return lists;
}

std::uint64_t total_tokens(Napi::Env env, const std::vector<List>& lists, const std::string& what) {
  std::uint64_t total = 0;
  for (const List& list : lists) total += list.tokens;
  if (total > tokens_max) throw_invalid(env, what + " have more than 2^31 tokens; compute them in parts.");
  return total;
}

}  // namespace

Napi::Value expert_bytes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const moe::ExpertLayout layout(read_expert_shape(info[0], "expertBytes: shape"));
    Napi::Object object = Napi::Object::New(env);
    object.Set("inference", Napi::Number::New(env, static_cast<double>(layout.inference_bytes)));
    object.Set("training", Napi::Number::New(env, static_cast<double>(layout.training_bytes)));
    return object;
  });
}

Napi::Value pack_expert(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "packExpert";
    const moe::ExpertShape shape = read_expert_shape(info[0], call + ": shape");
    const std::vector<moe::ExpertTensor> names = moe::expert_tensors(shape);
    const Napi::Array tensors = read_array(info[1], call + ": tensors");
    if (tensors.Length() != names.size()) {
      throw_invalid(env, call + ": tensors must be " + std::to_string(names.size()) + " arrays.");
    }
    ExpertArrays arrays;
    std::vector<const void*> pointers;
    for (std::uint32_t i = 0; i < tensors.Length(); ++i) {
      pointers.push_back(
          arrays.read(tensors.Get(i), call + ": " + names[i].name, shape.dtype, names[i].elements, Use::input));
    }
    const bool trains = read_tensor(info[2], call + ": into").bytes == moe::ExpertLayout(shape).training_bytes;
    std::byte* const into = arrays.read_packed(info[2], call + ": into", shape, trains, Use::output);
    arrays.require_separate(env);
    return ComputeThread::of(env).start(env, call, arrays.take_lease(),
                                       [=](moe::RoutedWorkspace&, const std::atomic<bool>&) {
                                         moe::pack_expert(shape, pointers, trains, into);
                                       });
  });
}

Napi::Value expert_forward(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "expertForward";
    const moe::ExpertShape shape = read_expert_shape(info[0], call + ": shape");
    ExpertArrays arrays;
    const std::vector<List> lists = read_lists(info[1], call + ": experts", shape, false, arrays);
    const std::uint64_t tokens = total_tokens(env, lists, call + ": experts");
    const std::uint64_t count = tokens * shape.hidden;
    const std::byte* const x = arrays.read(info[2], call + ": x", shape.dtype, count, Use::input);
    std::byte* const y = arrays.read(info[3], call + ": y", shape.dtype, count, Use::output);
    std::byte* preactivations = nullptr;
    if (!info[4].IsUndefined()) {
      preactivations =
          arrays.read(info[4], call + ": preactivations", shape.dtype, tokens * 2 * shape.inner, Use::output);
    }
    arrays.require_separate(env);
    const auto work = [=](moe::RoutedWorkspace& workspace, const std::atomic<bool>& stopped) {
      const std::size_t element = element_bytes(shape.dtype);
      std::size_t first = 0;
      for (const List& list : lists) {
        const std::size_t at = first * shape.hidden * element;
        std::byte* const kept =
            preactivations == nullptr ? nullptr : preactivations + first * 2 * shape.inner * element;
        moe::run_forward({shape, list.packed, list.tokens, x + at, y + at, kept}, workspace.expert, stopped);
        first += list.tokens;
      }
    };
    return ComputeThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

Napi::Value expert_backward(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "expertBackward";
    const moe::ExpertShape shape = read_expert_shape(info[0], call + ": shape");
    ExpertArrays arrays;
    const std::vector<List> lists = read_lists(info[1], call + ": experts", shape, true, arrays);
    const std::uint64_t tokens = total_tokens(env, lists, call + ": experts");
    const std::uint64_t count = tokens * shape.hidden;
    const std::byte* const x = arrays.read(info[2], call + ": x", shape.dtype, count, Use::input);
    const std::byte* const preactivations =
        arrays.read(info[3], call + ": preactivations", shape.dtype, tokens * 2 * shape.inner, Use::input);
    const std::byte* const y_gradient =
        arrays.read(info[4], call + ": yGradient", shape.dtype, count, Use::input);
    std::byte* const x_gradient = arrays.read(info[5], call + ": xGradient", shape.dtype, count, Use::output);
    arrays.require_separate(env);
    const auto work = [=](moe::RoutedWorkspace& workspace, const std::atomic<bool>& stopped) {
      const std::size_t element = element_bytes(shape.dtype);
      std::size_t first = 0;
      for (const List& list : lists) {
        const std::size_t at = first * shape.hidden * element;
        moe::run_backward({shape, list.packed, list.tokens, list.first_position, x + at,
                           preactivations + first * 2 * shape.inner * element, y_gradient + at, x_gradient + at,
                           list.gradients},
                          workspace.expert, stopped);
        first += list.tokens;
      }
    };
    return ComputeThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

}  // namespace pccl::node
