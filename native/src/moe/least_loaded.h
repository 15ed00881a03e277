// LLA, the greedy of least-loaded expert parallelism (Nguyen et al., "Least-Loaded Expert Parallelism",
// arXiv 2601.17111): experts in falling order of their copies; what doesn't fit under the owner's capacity is lent
// to the least loaded ranks.
#pragma once

#include <vector>

#include "moe/workload.h"

namespace pccl::moe {

// As the authors' code (SalesforceAIResearch/LeastLoadedEP at 0349746) does it, with equal ranks: the capacity is
// truncated, the last rest may be small, may exceed a capacity, and may make a second loan of one expert to one rank.
std::vector<Loan> lend_as_reference(const Workload& work);

// With its defects mended: capacities are rounded up and follow the ranks' speeds; a rank borrows an expert once, at
// least chunk_copies_min copies of it, and within its import budget. Where no rank has room for so many, they are lent
// all the same if the borrower then still takes less time than the owner did; what is left stays with the owner.
std::vector<Loan> lend_least_loaded(const Workload& work);

// The largest load over the mean load, both relative to the ranks' speeds; 1 without any copies.
double load_imbalance(const Workload& work);
// The same in the reference's arithmetic: single precision, equal ranks.
double reference_imbalance(const Workload& work);

}  // namespace pccl::moe
