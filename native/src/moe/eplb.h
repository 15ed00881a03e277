// EPLB, the periodic balancer of DeepSeek (github.com/deepseek-ai/EPLB, its global policy), for comparison: experts
// are replicated by past statistics and packed anew onto all ranks, and each batch is divided evenly between the
// replicas that are there.
#pragma once

#include <vector>

#include "moe/workload.h"

namespace pccl::moe {

// A loan for each expert and rank but its owner, of 0 copies where a replica gets none. The placement outlives the
// batch, so chunk_copies_min and imports_max don't apply: redundant_experts is its budget.
std::vector<Loan> lend_by_statistics(const Workload& work);

}  // namespace pccl::moe
