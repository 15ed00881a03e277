// The one entry to all planners: checks a request, plans, and lays the plan out.
#pragma once

#include "moe/plan.h"

namespace pccl::moe {

inline constexpr std::uint32_t ranks_max = 4096;
inline constexpr std::uint32_t experts_max = 65536;
// The largest total of copies: sums stay exact as double-precision numbers, which JavaScript's are.
inline constexpr Copies copies_max = Copies{1} << 53;

// Equal requests give equal plans, on every machine: plain IEEE arithmetic in a fixed order, no threads, no clock.
// Throws EngineError with invalid_argument.
Plan make_plan(const PlanRequest& request);

}  // namespace pccl::moe
