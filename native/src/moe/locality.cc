#include "moe/locality.h"

#include <algorithm>
#include <utility>

namespace pccl::moe {

namespace {

constexpr int rounds_max = 4;

class LocalExchange {
 public:
  LocalExchange(const Workload& work, const std::vector<Loan>& loans)
      : work_(work), loans_(loans), native_(work.expert_copies) {
    for (const Loan& loan : loans_) native_[loan.expert] -= loan.copies;
  }

  std::vector<Loan> run() {
    bool is_improved = true;
    for (int round = 0; is_improved && round < rounds_max; ++round) {
      is_improved = false;
      for (Loan& loan : loans_) is_improved |= lend_another_expert(loan);
      for (std::size_t i = 0; i < loans_.size(); ++i) {
        for (std::size_t j = i + 1; j < loans_.size(); ++j) is_improved |= exchange_experts(loans_[i], loans_[j]);
      }
    }
    return loans_;
  }

 private:
  Rank owner(const Loan& loan) const { return work_.request.owners[loan.expert]; }
  Copies local(Expert expert, Rank rank, Copies copies) const { return std::min(copies, work_.count(rank, expert)); }
  // Local copies of an expert at its owner and at a borrower.
  Copies local_pair(Expert expert, Copies native, Rank target, Copies lent) const {
    return local(expert, work_.request.owners[expert], native) + local(expert, target, lent);
  }
  bool is_lent(Expert expert, Rank target) const {
    return std::any_of(loans_.begin(), loans_.end(),
                       [&](const Loan& loan) { return loan.expert == expert && loan.target == target; });
  }

  bool lend_another_expert(Loan& loan) {
    const Expert old = loan.expert;
    Expert best = old;
    Copies best_gain = 0;
    for (const Expert other : work_.owned_by(owner(loan))) {
      if (other == old || native_[other] < loan.copies) continue;
      const Copies before = local_pair(old, native_[old], loan.target, loan.copies) +
                            local_pair(other, native_[other], loan.target, 0);
      const Copies after = local_pair(old, native_[old] + loan.copies, loan.target, 0) +
                           local_pair(other, native_[other] - loan.copies, loan.target, loan.copies);
      if (after - before > best_gain && !is_lent(other, loan.target)) {
        best_gain = after - before;
        best = other;
      }
    }
    if (best == old) return false;
    native_[old] += loan.copies;
    native_[best] -= loan.copies;
    loan.expert = best;
    return true;
  }

  bool exchange_experts(Loan& first, Loan& second) {
    if (owner(first) != owner(second) || first.target == second.target || first.expert == second.expert) return false;
    const Copies first_native = native_[first.expert] + first.copies - second.copies;
    const Copies second_native = native_[second.expert] + second.copies - first.copies;
    if (first_native < 0 || second_native < 0) return false;
    const Copies before = local_pair(first.expert, native_[first.expert], first.target, first.copies) +
                          local_pair(second.expert, native_[second.expert], second.target, second.copies);
    const Copies after = local_pair(first.expert, first_native, second.target, second.copies) +
                         local_pair(second.expert, second_native, first.target, first.copies);
    if (after <= before || is_lent(first.expert, second.target) || is_lent(second.expert, first.target)) return false;
    native_[first.expert] = first_native;
    native_[second.expert] = second_native;
    std::swap(first.expert, second.expert);
    return true;
  }

  const Workload& work_;
  std::vector<Loan> loans_;
  std::vector<Copies> native_;  // [experts]: what is left to the owner
};

}  // namespace

std::vector<Loan> with_local_choices(const Workload& work, const std::vector<Loan>& loans) {
  return LocalExchange(work, loans).run();
}

}  // namespace pccl::moe
