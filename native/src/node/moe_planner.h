// planExperts: the planners of expert parallelism for JavaScript.
#pragma once

#include <napi.h>

namespace pccl::node {

// One argument, a PlanRequest of packages/bindings/src/addon.ts; returns its ExpertPlan.
Napi::Value plan_experts(const Napi::CallbackInfo& info);

}  // namespace pccl::node
