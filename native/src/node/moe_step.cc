#include "node/moe_step.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "moe/planner.h"
#include "moe/step/dispatch.h"
#include "moe/step/routed_pass.h"
#include "moe/step/rows.h"
#include "node/arguments.h"
#include "node/errors.h"
#include "node/expert_arrays.h"
#include "node/compute_thread.h"
#include "node/moe_arguments.h"

namespace pccl::node {

namespace {

using Use = ExpertArrays::Use;

// One step, from its routing to its end. JavaScript holds it and sees none of the indices, so that they are right.
// Calls that run hold it too. Its parts are written by the environment's thread, and only before they are read.
struct StepState {
  moe::Step step;
  std::vector<moe::Copies> counts;
  moe::Rank rank = 0;
  std::vector<std::uint32_t> first_slot;
  std::vector<float> gates;
  moe::Outgoing out;
  moe::Incoming in;
  std::vector<std::uint32_t> list_starts;  // where each list's copies begin, and the number of copies

  std::size_t tokens() const { return first_slot.size() - 1; }
  std::size_t received_rows() const {
    return std::accumulate(in.row_counts.begin(), in.row_counts.end(), std::size_t{0});
  }
};
using StepHandle = std::shared_ptr<StepState>;

constexpr napi_type_tag step_tag = {0x6d6f652d73746570, 0x8f1c2ab94de07733};

Napi::Value step_object(Napi::Env env, StepHandle state) {
  auto external = Napi::External<StepHandle>::New(env, new StepHandle(std::move(state)),
                                                  [](Napi::Env, StepHandle* handle) { delete handle; });
  external.TypeTag(&step_tag);
  return external;
}

StepHandle read_step(Napi::Value value, const std::string& what) {
  if (!value.IsExternal() || !value.As<Napi::External<StepHandle>>().CheckTypeTag(&step_tag)) {
    throw_not(value, what, "what addressCopies gave");
  }
  return *value.As<Napi::External<StepHandle>>().Data();
}

struct Rows {
  DType dtype = DType::f32;
  std::size_t width = 0;
};

Rows read_rows(Napi::Value dtype, Napi::Value width, const std::string& call) {
  const std::string name = read_string(dtype, call + ": dtype");
  if (name != "f32" && name != "bf16") throw_not(dtype, call + ": dtype", "\"f32\" or \"bf16\"");
  return {name == "f32" ? DType::f32 : DType::bf16,
          static_cast<std::size_t>(read_integer(width, call + ": width", 1, moe::expert_size_max))};
}

// Those of a step's lists that a call computes.
struct ListCall {
  std::uint32_t list = 0;
  const std::byte* packed = nullptr;
  std::vector<float*> gradients;
};

std::vector<ListCall> read_list_calls(Napi::Value value, const std::string& what, const StepState& state,
                                      const moe::ExpertShape& shape, bool trains, ExpertArrays& arrays) {
  const Napi::Array array = read_array(value, what);
  const std::vector<moe::ExpertTensor> tensors = moe::expert_tensors(shape);
  if (array.Length() > 0 && state.in.lists.empty()) throw_invalid(value.Env(), what + " must be empty, as the step's.");
  std::vector<ListCall> calls;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const std::string here = what + "[" + std::to_string(i) + "]";
    const Napi::Object object = read_object(array.Get(i), here);
    ListCall call;
    call.list =
        static_cast<std::uint32_t>(read_integer(object.Get("list"), here + ".list", 0, state.in.lists.size() - 1));
    call.packed = arrays.read_packed(object.Get("weights"), here + ".weights", shape, trains, Use::input);
    if (trains) {
      const Napi::Array gradients = read_array(object.Get("gradients"), here + ".gradients");
      if (gradients.Length() != tensors.size()) {
        throw_invalid(value.Env(), here + ".gradients must be " + std::to_string(tensors.size()) + " arrays.");
      }
      for (std::uint32_t j = 0; j < gradients.Length(); ++j) {
        call.gradients.push_back(reinterpret_cast<float*>(arrays.read(
            gradients.Get(j), here + ".gradients." + tensors[j].name, DType::f32, tensors[j].elements, Use::sum, j)));
      }
    }
    calls.push_back(std::move(call));
  }
  return calls;
}

template <typename T>
std::span<const T> part(const std::vector<T>& values, const StepState& state, std::uint32_t list) {
  return std::span(values).subspan(state.list_starts[list], state.in.lists[list].copies);
}

}  // namespace

Napi::Value address_copies(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string what = "addressCopies: request";
    const Napi::Object object = read_object(info[0], what);
    const auto field = [&](const char* name) { return what + "." + name; };
    const auto state = std::make_shared<StepState>();
    moe::Step& step = state->step;
    step.ranks = static_cast<moe::Rank>(read_integer(object.Get("ranks"), field("ranks"), 1, moe::ranks_max));
    step.experts = static_cast<moe::Expert>(read_integer(object.Get("experts"), field("experts"), 1, moe::experts_max));
    state->rank = static_cast<moe::Rank>(read_integer(object.Get("rank"), field("rank"), 0, step.ranks - 1));
    state->counts = read_numbers<moe::Copies>(object.Get("counts"), field("counts"));
    step.counts = state->counts;
    step.blocks = read_numbers<moe::Rank>(object.Get("blocks"), field("blocks"));
    step.has_gates = read_boolean(object.Get("training"), field("training"));
    step.first_interval = read_numbers<std::uint32_t>(object.Get("firstInterval"), field("firstInterval"));
    const auto ranks = read_numbers<moe::Rank>(object.Get("intervalRanks"), field("intervalRanks"));
    const auto ends = read_numbers<moe::Copies>(object.Get("intervalEnds"), field("intervalEnds"));
    const auto starts = read_numbers<moe::Copies>(object.Get("intervalStarts"), field("intervalStarts"));
    if (ranks.size() != ends.size() || starts.size() != ends.size()) {
      throw_invalid(env, what + ": an interval needs a rank, a start and an end.");
    }
    for (std::size_t i = 0; i < ranks.size(); ++i) step.intervals.push_back({ranks[i], starts[i], ends[i]});
    moe::check_step(step);
    state->first_slot = read_indices(object.Get("firstSlot"), field("firstSlot"));
    const std::vector<std::uint32_t> experts = read_indices(object.Get("slotExperts"), field("slotExperts"));
    const std::span<const float> gates = read_floats(object.Get("gates"), field("gates"));
    state->gates.assign(gates.begin(), gates.end());
    if (gates.size() != experts.size()) throw_invalid(env, what + ": there must be a gate for each slot.");
    state->out = moe::address_copies(step, state->rank, state->first_slot, experts, state->gates);

    Napi::Object result = Napi::Object::New(env);
    result.Set("step", step_object(env, state));
    result.Set("rowCounts", numbers_array(env, state->out.row_counts));
    result.Set("copyCounts", numbers_array(env, state->out.copy_counts));
    result.Set("headers", typed_array<Napi::Int32Array>(env, state->out.headers));
    result.Set("headerCounts", numbers_array(env, state->out.header_counts));
    // They are on their way: only the other ranks read them.
    state->out.headers = {};
    return result;
  });
}

Napi::Value receive_copies(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const StepHandle state = read_step(info[0], "receiveCopies: step");
    const Tensor headers = read_tensor(info[1], "receiveCopies: headers");
    if (headers.dtype != DType::i32) throw_not(info[1], "receiveCopies: headers", "an Int32Array");
    if (!state->list_starts.empty()) throw_invalid(env, "receiveCopies: the step has its headers already.");
    state->in = moe::receive_copies(state->step, state->rank,
                                    {static_cast<const std::uint32_t*>(headers.data), headers.count});
    const moe::Incoming& in = state->in;
    std::uint32_t start = 0;
    Napi::Array lists = Napi::Array::New(env, in.lists.size());
    for (std::uint32_t i = 0; i < in.lists.size(); ++i) {
      state->list_starts.push_back(start);
      start += in.lists[i].copies;
      Napi::Object list = Napi::Object::New(env);
      list.Set("expert", Napi::Number::New(env, in.lists[i].expert));
      list.Set("copies", Napi::Number::New(env, in.lists[i].copies));
      lists.Set(i, list);
    }
    state->list_starts.push_back(start);
    Napi::Object result = Napi::Object::New(env);
    result.Set("rowCounts", numbers_array(env, in.row_counts));
    result.Set("copyCounts", numbers_array(env, in.copy_counts));
    result.Set("lists", lists);
    return result;
  });
}

Napi::Value gather_rows(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "gatherRows";
    const StepHandle state = read_step(info[0], call + ": step");
    const auto [dtype, width] = read_rows(info[1], info[2], call);
    ExpertArrays arrays;
    const std::byte* const from = arrays.read(info[3], call + ": from", dtype, state->tokens() * width, Use::input);
    std::byte* const into =
        arrays.read(info[4], call + ": into", dtype, state->out.tokens.size() * width, Use::output);
    arrays.require_separate(env);
    const std::size_t row_bytes = width * element_bytes(dtype);
    return ComputeThread::of(env).start(env, call, arrays.take_lease(),
                                       [=](moe::RoutedWorkspace&, const std::atomic<bool>&) {
                                         moe::gather_rows(from, state->out.tokens, row_bytes, into);
                                       });
  });
}

Napi::Value forward_lists(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "forwardLists";
    const StepHandle state = read_step(info[0], call + ": step");
    const moe::ExpertShape shape = read_expert_shape(info[1], call + ": shape");
    ExpertArrays arrays;
    const std::vector<ListCall> calls = read_list_calls(info[2], call + ": lists", *state, shape, false, arrays);
    const std::size_t copies = state->in.rows.size();
    const std::byte* const x =
        arrays.read(info[3], call + ": x", shape.dtype, state->received_rows() * shape.hidden, Use::input);
    std::byte* const y = arrays.read(info[4], call + ": y", shape.dtype, copies * shape.hidden, Use::output);
    std::byte* kept = nullptr;
    if (!info[5].IsUndefined()) {
      kept = arrays.read(info[5], call + ": preactivations", shape.dtype, copies * 2 * shape.inner, Use::output);
    }
    arrays.require_separate(env);
    const auto work = [=](moe::RoutedWorkspace& workspace, const std::atomic<bool>& stopped) {
      const std::size_t kept_bytes = 2 * shape.inner * element_bytes(shape.dtype);
      for (const ListCall& one : calls) {
        std::byte* const own = kept == nullptr ? nullptr : kept + state->list_starts[one.list] * kept_bytes;
        moe::run_routed_forward({shape, one.packed, part(state->in.rows, *state, one.list),
                                 part(state->in.results, *state, one.list), x, y, own},
                                workspace, stopped);
      }
    };
    return ComputeThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

Napi::Value backward_lists(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "backwardLists";
    const StepHandle state = read_step(info[0], call + ": step");
    const moe::ExpertShape shape = read_expert_shape(info[1], call + ": shape");
    if (!state->step.has_gates) throw_invalid(env, call + ": the step isn't one of training.");
    ExpertArrays arrays;
    const std::vector<ListCall> calls = read_list_calls(info[2], call + ": lists", *state, shape, true, arrays);
    const std::size_t copies = state->in.rows.size();
    const std::size_t received = state->received_rows() * shape.hidden;
    const std::byte* const x = arrays.read(info[3], call + ": x", shape.dtype, received, Use::input);
    const std::byte* const kept =
        arrays.read(info[4], call + ": preactivations", shape.dtype, copies * 2 * shape.inner, Use::input);
    const std::byte* const output_gradient =
        arrays.read(info[5], call + ": outputGradient", shape.dtype, received, Use::input);
    std::byte* const x_gradient =
        arrays.read(info[6], call + ": xGradient", shape.dtype, copies * shape.hidden, Use::output);
    arrays.require_separate(env);
    const auto work = [=](moe::RoutedWorkspace& workspace, const std::atomic<bool>& stopped) {
      const std::size_t kept_bytes = 2 * shape.inner * element_bytes(shape.dtype);
      for (const ListCall& one : calls) {
        moe::run_routed_backward(
            {shape, one.packed, static_cast<std::uint64_t>(state->in.lists[one.list].first_position),
             part(state->in.rows, *state, one.list), part(state->in.results, *state, one.list),
             part(state->in.gates, *state, one.list), x, kept + state->list_starts[one.list] * kept_bytes,
             output_gradient, x_gradient, one.gradients},
            workspace, stopped);
      }
    };
    return ComputeThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

Napi::Value combine_rows(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "combineRows";
    const StepHandle state = read_step(info[0], call + ": step");
    const auto [dtype, width] = read_rows(info[1], info[2], call);
    const bool is_gated = read_boolean(info[3], call + ": gated");
    ExpertArrays arrays;
    moe::Combination combination{dtype, width, state->first_slot, state->out.places, {}, nullptr, {}};
    if (is_gated) combination.gates = state->gates;
    combination.results =
        arrays.read(info[4], call + ": results", dtype, state->out.places.size() * width, Use::input);
    const Napi::Array addends = read_array(info[5], call + ": addends");
    const std::size_t count = state->tokens() * width;
    for (std::uint32_t i = 0; i < addends.Length(); ++i) {
      const std::string what = call + ": addends[" + std::to_string(i) + "]";
      const DType kind = read_tensor(addends.Get(i), what).dtype == DType::f32 ? DType::f32 : DType::bf16;
      combination.addends.push_back({kind, arrays.read(addends.Get(i), what, kind, count, Use::input)});
    }
    std::byte* const into = arrays.read(info[6], call + ": into", dtype, count, Use::output);
    arrays.require_separate(env);
    const auto work = [state, combination, into](moe::RoutedWorkspace& workspace, const std::atomic<bool>&) {
      moe::combine(combination, workspace.sums, into);
    };
    return ComputeThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

Napi::Value gate_gradients(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "gateGradients";
    const StepHandle state = read_step(info[0], call + ": step");
    const auto [dtype, width] = read_rows(info[1], info[2], call);
    ExpertArrays arrays;
    moe::Combination combination{dtype, width, state->first_slot, state->out.places, {}, nullptr, {}};
    combination.results =
        arrays.read(info[3], call + ": results", dtype, state->out.places.size() * width, Use::input);
    const std::byte* const output_gradient =
        arrays.read(info[4], call + ": outputGradient", dtype, state->tokens() * width, Use::input);
    auto* const into =
        reinterpret_cast<float*>(arrays.read(info[5], call + ": into", DType::f32, state->gates.size(), Use::output));
    arrays.require_separate(env);
    const auto work = [state, combination, output_gradient, into](moe::RoutedWorkspace&, const std::atomic<bool>&) {
      moe::gate_gradients(combination, output_gradient, into);
    };
    return ComputeThread::of(env).start(env, call, arrays.take_lease(), work);
  });
}

Napi::Value add_floats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::string call = "addFloats";
    const std::size_t count = read_tensor(info[0], call + ": from").count;
    ExpertArrays arrays;
    const auto* const from =
        reinterpret_cast<const float*>(arrays.read(info[0], call + ": from", DType::f32, count, Use::input));
    auto* const into = reinterpret_cast<float*>(arrays.read(info[1], call + ": into", DType::f32, count, Use::output));
    arrays.require_separate(env);
    return ComputeThread::of(env).start(
        env, call, arrays.take_lease(),
        [=](moe::RoutedWorkspace&, const std::atomic<bool>&) { moe::add_floats(from, count, into); });
  });
}

}  // namespace pccl::node
