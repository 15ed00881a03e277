// Which copies of a lent expert go to which of its ranks: those that are already there first, then those of the
// same node. So the copies that cross ranks are as few as the loads of the plan allow, and among such choices those
// that cross nodes.
#pragma once

#include <span>
#include <vector>

#include "moe/workload.h"

namespace pccl::moe {

struct Share {
  Rank rank = 0;
  Copies copies = 0;
};

struct Flow {
  Rank source = 0;
  Rank target = 0;
  Copies copies = 0;
};

class TokenChoice {
 public:
  explicit TokenChoice(const Workload& work);

  // `shares` adds up to the expert's copies. The result, in no particular order, is valid until the next call.
  std::span<const Flow> choose(Expert expert, std::span<const Share> shares);

 private:
  void match(std::span<const Rank> ranks);

  const Workload& work_;
  std::vector<Copies> left_;    // [ranks]: copies of a source without a target
  std::vector<Copies> wanted_;  // [ranks]: copies that a target still takes
  std::vector<Flow> flows_;
};

// The ranks that compute an expert: its owner first, if anything is left to it, then the borrowers as they were
// chosen. One entry per loan. The result is valid until the next call.
class ShareList {
 public:
  ShareList(const Workload& work, std::span<const Loan> loans);
  std::span<const Share> of(Expert expert);
  bool is_lent(Expert expert) const { return first_loan_[expert + 1] > first_loan_[expert]; }
  // Experts with at least one loan, ascending.
  std::span<const Expert> lent() const { return lent_; }

 private:
  const Workload& work_;
  std::vector<Loan> loans_;                // grouped by expert
  std::vector<std::uint32_t> first_loan_;  // [experts + 1]
  std::vector<Expert> lent_;
  std::vector<Share> shares_;
};

}  // namespace pccl::moe
