#include "node/moe_planner.h"

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "moe/planner.h"
#include "node/arguments.h"
#include "node/buffers.h"
#include "node/errors.h"

namespace pccl::node {

namespace {

double read_number(Napi::Value value, const std::string& what) {
  if (!value.IsNumber()) throw_not(value, what, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

std::span<const double> read_numbers(Napi::Value value, const std::string& what) {
  const Tensor tensor = read_tensor(value, what);
  if (tensor.dtype != DType::f64) throw_not(value, what, "a Float64Array");
  return {static_cast<const double*>(tensor.data), tensor.count};
}

template <typename T>
std::vector<T> read_integers(Napi::Value value, const std::string& what, double max) {
  const std::span<const double> numbers = read_numbers(value, what);
  std::vector<T> integers;
  integers.reserve(numbers.size());
  for (const double number : numbers) {
    // Converted and back: std::trunc is a call, and there may be many numbers.
    if (!(number >= 0 && number <= max && static_cast<double>(static_cast<T>(number)) == number)) {
      throw_invalid(value.Env(), what + " must hold integers from 0 to " + std::to_string(std::llround(max)) + ".");
    }
    integers.push_back(static_cast<T>(number));
  }
  return integers;
}

moe::Planner read_planner(Napi::Value value, const std::string& what) {
  const std::string name = read_string(value, what);
  if (name == "ep") return moe::Planner::ep;
  if (name == "lla") return moe::Planner::lla;
  if (name == "auto") return moe::Planner::automatic;
  if (name == "eplb") return moe::Planner::eplb;
  throw_not(value, what, "\"ep\", \"lla\", \"auto\" or \"eplb\"");
}

moe::CostModel read_cost_model(Napi::Value value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  const auto seconds = [&](const char* name) { return read_number(object.Get(name), what + "." + name); };
  return {seconds("copySeconds"),        seconds("expertSeconds"),    seconds("transferSeconds"),
          seconds("farTransferSeconds"), seconds("crossCopySeconds"), seconds("farCrossCopySeconds"),
          seconds("lendSeconds")};
}

moe::PlanRequest read_plan_request(Napi::Value value, const std::string& what) {
  constexpr double u32_max = UINT32_MAX;
  const Napi::Object object = read_object(value, what);
  const auto field = [&](const char* name) { return what + "." + name; };
  moe::PlanRequest request;
  request.ranks =
      static_cast<moe::Rank>(read_integer(object.Get("ranks"), field("ranks"), 1, moe::ranks_max));
  request.experts =
      static_cast<moe::Expert>(read_integer(object.Get("experts"), field("experts"), 1, moe::experts_max));
  request.counts =
      read_integers<moe::Copies>(object.Get("counts"), field("counts"), static_cast<double>(moe::copies_max));
  request.owners = read_integers<moe::Rank>(object.Get("owners"), field("owners"), u32_max);
  const std::span<const double> speeds = read_numbers(object.Get("speeds"), field("speeds"));
  request.speeds.assign(speeds.begin(), speeds.end());
  request.nodes = read_integers<std::uint32_t>(object.Get("nodes"), field("nodes"), u32_max);
  request.imports_max = read_integers<std::uint32_t>(object.Get("importsMax"), field("importsMax"), u32_max);
  request.planner = read_planner(object.Get("planner"), field("planner"));
  request.capacity_factor = read_number(object.Get("capacityFactor"), field("capacityFactor"));
  request.chunk_copies_min = static_cast<moe::Copies>(
      read_integer(object.Get("minChunkCopies"), field("minChunkCopies"), 1, safe_integer_max));
  request.imbalance_min = read_number(object.Get("minImbalance"), field("minImbalance"));
  request.strict_reference = read_boolean(object.Get("strictReference"), field("strictReference"));
  request.cost = read_cost_model(object.Get("costModel"), field("costModel"));
  const std::span<const double> statistics = read_numbers(object.Get("statistics"), field("statistics"));
  request.statistics.assign(statistics.begin(), statistics.end());
  request.redundant_experts = static_cast<std::uint32_t>(
      read_integer(object.Get("redundantExperts"), field("redundantExperts"), 0, moe::experts_max));
  return request;
}

// Filled by `write(i)`, which returns the i-th number.
template <typename Write>
Napi::Float64Array numbers(Napi::Env env, std::size_t count, Write&& write) {
  Napi::Float64Array array = Napi::Float64Array::New(env, count);
  double* data = array.Data();
  for (std::size_t i = 0; i < count; ++i) data[i] = static_cast<double>(write(i));
  return array;
}

template <typename T>
Napi::Float64Array numbers(Napi::Env env, const std::vector<T>& values) {
  return numbers(env, values.size(), [&](std::size_t i) { return values[i]; });
}

Napi::Object plan_object(Napi::Env env, const moe::Plan& plan) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("isApplied", Napi::Boolean::New(env, plan.is_applied));
  object.Set("loanExperts", numbers(env, plan.loans.size(), [&](std::size_t i) { return plan.loans[i].expert; }));
  object.Set("loanTargets", numbers(env, plan.loans.size(), [&](std::size_t i) { return plan.loans[i].target; }));
  object.Set("loanCopies", numbers(env, plan.loans.size(), [&](std::size_t i) { return plan.loans[i].copies; }));
  const auto& intervals = plan.intervals;
  object.Set("intervalRanks", numbers(env, intervals.size(), [&](std::size_t i) { return intervals[i].rank; }));
  object.Set("intervalStarts", numbers(env, intervals.size(), [&](std::size_t i) { return intervals[i].start; }));
  object.Set("intervalEnds", numbers(env, intervals.size(), [&](std::size_t i) { return intervals[i].end; }));
  object.Set("firstInterval", numbers(env, plan.first_interval));
  object.Set("loadsBefore", numbers(env, plan.loads_before));
  object.Set("loadsAfter", numbers(env, plan.loads_after));
  object.Set("sentBefore", numbers(env, plan.sent_before));
  object.Set("sentAfter", numbers(env, plan.sent_after));
  object.Set("secondsBefore", numbers(env, plan.before.rank_seconds));
  object.Set("secondsAfter", numbers(env, plan.after.rank_seconds));
  return object;
}

}  // namespace

Napi::Value plan_experts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    return plan_object(env, moe::make_plan(read_plan_request(info[0], "planExperts: request")));
  });
}

}  // namespace pccl::node
