// The planner that minimizes predicted time. It looks for the lowest step time C for which a greedy finds loans that
// bring every rank under C, exports and imports included (bisection over C, as UltraEP's quota planner does for loads,
// arXiv 2606.04101), with several rules for the greedy, and over a grid of C. It takes the plan with the lowest time,
// where each loan must be worth a part of it. Exchanges between its loans then keep more copies local.
#pragma once

#include <vector>

#include "moe/workload.h"

namespace pccl::moe {

// Never predicted slower than no loans at all. Keeps chunk_copies_min and the import budgets.
std::vector<Loan> lend_by_cost(const Workload& work);

}  // namespace pccl::moe
