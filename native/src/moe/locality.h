// Exchanges between the loans of a plan that leave every rank's load as it is and let more copies stay on the rank
// that they come from.
#pragma once

#include <vector>

#include "moe/workload.h"

namespace pccl::moe {

// The same owners lend the same numbers of copies to the same ranks, of other experts where that is better.
std::vector<Loan> with_local_choices(const Workload& work, const std::vector<Loan>& loans);

}  // namespace pccl::moe
