#include "node/moe_experts.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "moe/ffn/expert_pass.h"
#include "node/arguments.h"
#include "node/buffers.h"
#include "node/errors.h"
#include "node/expert_thread.h"

namespace pccl::node {

namespace {

constexpr std::size_t packed_alignment = 64;
constexpr std::uint64_t tokens_max = std::uint64_t{1} << 31;

moe::ExpertShape read_shape(Napi::Value value, const std::string& what) {
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

// Arrays of one call: pinned, and with no output in the memory of another argument.
class Arrays {
 public:
  enum class Use { input, output, sum };

  // Numbers of a dtype; bf16 lies in a Uint16Array. Returns where they are.
  std::byte* read(Napi::Value value, const std::string& what, DType dtype, std::uint64_t count, Use use,
                  std::size_t tensor_index = 0) {
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

  // Packed weights for inference, or with what training needs.
  std::byte* read_packed(Napi::Value value, const std::string& what, const moe::ExpertShape& shape, bool trains,
                         Use use) {
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

  // Call after the last one was read.
  void require_separate(Napi::Env env) {
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

  Lease take_lease() { return std::move(lease_); }

 private:
  struct Read {
    std::string what;
    std::uintptr_t begin;
    std::uintptr_t end;
    Use use;
    std::size_t tensor_index;

    bool is_same_sum(const Read& other) const {
      return use == Use::sum && other.use == Use::sum && tensor_index == other.tensor_index && begin == other.begin &&
             end == other.end;
    }
  };

  std::byte* add(Napi::Value value, const std::string& what, const Tensor& tensor, Use use,
                 std::size_t tensor_index) {
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
    if (tensor.bytes > 0) reads_.push_back({what, begin, begin + tensor.bytes, use, tensor_index});
    lease_.pin(value);
    return static_cast<std::byte*>(tensor.data);
  }

  std::vector<Read> reads_;
  Lease lease_;
};

// The lists of tokens that x and all else of a call consist of, one expert each.
struct List {
  std::uint64_t tokens = 0;
  const std::byte* packed = nullptr;
  std::uint64_t first_position = 0;
  std::vector<float*> gradients;
};

std::vector<List> read_lists(Napi::Value value, const std::string& what, const moe::ExpertShape& shape, bool trains,
                             Arrays& arrays) {
  const Napi::Array array = read_array(value, what);
  const std::vector<moe::ExpertTensor> tensors = moe::expert_tensors(shape);
  std::vector<List> lists;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const std::string here = what + "[" + std::to_string(i) + "]";
    const Napi::Object object = read_object(array.Get(i), here);
    List list;
    list.tokens = read_integer(object.Get("tokens"), here + ".tokens", 0, tokens_max);
    list.packed = arrays.read_packed(object.Get("weights"), here + ".weights", shape, trains, Arrays::Use::input);
    if (trains) {
      list.first_position = read_integer(object.Get("firstPosition"), here + ".firstPosition", 0, safe_integer_max);
      const Napi::Array gradients = read_array(object.Get("gradients"), here + ".gradients");
      if (gradients.Length() != tensors.size()) {
        throw_invalid(value.Env(), here + ".gradients must be " + std::to_string(tensors.size()) + " arrays.");
      }
      for (std::uint32_t j = 0; j < gradients.Length(); ++j) {
        std::byte* const gradient = arrays.read(gradients.Get(j), here + ".gradients." + tensors[j].name, DType::f32,
                                                tensors[j].elements, Arrays::Use::sum, j);
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
    const moe::ExpertLayout layout(read_shape(info[0], "expertBytes: shape"));
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
    const moe::ExpertShape shape = read_shape(info[0], call + ": shape");
    const std::vector<moe::ExpertTensor> names = moe::expert_tensors(shape);
    const Napi::Array tensors = read_array(info[1], call + ": tensors");
    if (tensors.Length() != names.size()) {
      throw_invalid(env, call + ": tensors must be " + std::to_string(names.size()) + " arrays.");
    }
    Arrays arrays;
    std::vector<const void*> pointers;
    for (std::uint32_t i = 0; i < tensors.Length(); ++i) {
      pointers.push_back(
          arrays.read(tensors.Get(i), call + ": " + names[i].name, shape.dtype, names[i].elements, Arrays::Use::input));
    }
    const bool trains = read_tensor(info[2], call + ": into").bytes == moe::ExpertLayout(shape).training_bytes;
    std::byte* const into = arrays.read_packed(info[2], call + ": into", shape, trains, Arrays::Use::output);
    arrays.require_separate(env);
    return ExpertThread::of(env).start(env, call, arrays.take_lease(),
                                       [=](moe::ExpertWorkspace&, const std::atomic<bool>&) {
                                         moe::pack_expert(shape, pointers, trains, into);
                                       });
  });
}

Napi::Value expert_forward(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "expertForward";
    const moe::ExpertShape shape = read_shape(info[0], call + ": shape");
    Arrays arrays;
    const std::vector<List> lists = read_lists(info[1], call + ": experts", shape, false, arrays);
    const std::uint64_t tokens = total_tokens(env, lists, call + ": experts");
    const std::uint64_t count = tokens * shape.hidden;
    const std::byte* const x = arrays.read(info[2], call + ": x", shape.dtype, count, Arrays::Use::input);
    std::byte* const y = arrays.read(info[3], call + ": y", shape.dtype, count, Arrays::Use::output);
    std::byte* preactivations = nullptr;
    if (!info[4].IsUndefined()) {
      preactivations =
          arrays.read(info[4], call + ": preactivations", shape.dtype, tokens * 2 * shape.inner, Arrays::Use::output);
    }
    arrays.require_separate(env);
    const auto work = [=](moe::ExpertWorkspace& workspace, const std::atomic<bool>& stopped) {
      const std::size_t element = element_bytes(shape.dtype);
      std::size_t first = 0;
      for (const List& list : lists) {
        const std::size_t at = first * shape.hidden * element;
        std::byte* const kept =
            preactivations == nullptr ? nullptr : preactivations + first * 2 * shape.inner * element;
        moe::run_forward({shape, list.packed, list.tokens, x + at, y + at, kept}, workspace, stopped);
        first += list.tokens;
      }
    };
    return ExpertThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

Napi::Value expert_backward(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "expertBackward";
    const moe::ExpertShape shape = read_shape(info[0], call + ": shape");
    Arrays arrays;
    const std::vector<List> lists = read_lists(info[1], call + ": experts", shape, true, arrays);
    const std::uint64_t tokens = total_tokens(env, lists, call + ": experts");
    const std::uint64_t count = tokens * shape.hidden;
    const std::byte* const x = arrays.read(info[2], call + ": x", shape.dtype, count, Arrays::Use::input);
    const std::byte* const preactivations =
        arrays.read(info[3], call + ": preactivations", shape.dtype, tokens * 2 * shape.inner, Arrays::Use::input);
    const std::byte* const y_gradient =
        arrays.read(info[4], call + ": yGradient", shape.dtype, count, Arrays::Use::input);
    std::byte* const x_gradient = arrays.read(info[5], call + ": xGradient", shape.dtype, count, Arrays::Use::output);
    arrays.require_separate(env);
    const auto work = [=](moe::ExpertWorkspace& workspace, const std::atomic<bool>& stopped) {
      const std::size_t element = element_bytes(shape.dtype);
      std::size_t first = 0;
      for (const List& list : lists) {
        const std::size_t at = first * shape.hidden * element;
        moe::run_backward({shape, list.packed, list.tokens, list.first_position, x + at,
                           preactivations + first * 2 * shape.inner * element, y_gradient + at, x_gradient + at,
                           list.gradients},
                          workspace, stopped);
        first += list.tokens;
      }
    };
    return ExpertThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

}  // namespace pccl::node
