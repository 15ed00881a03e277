#include "moe/token_choice.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace pccl::moe {

TokenChoice::TokenChoice(const Workload& work)
    : work_(work), left_(work.request.ranks), wanted_(work.request.ranks) {}

std::span<const Flow> TokenChoice::choose(Expert expert, std::span<const Share> shares) {
  flows_.clear();
  std::fill(wanted_.begin(), wanted_.end(), 0);
  for (const Share& share : shares) wanted_[share.rank] += share.copies;
  for (Rank rank = 0; rank < work_.request.ranks; ++rank) {
    left_[rank] = work_.count(rank, expert);
    const Copies stay = std::min(left_[rank], wanted_[rank]);
    if (stay == 0) continue;
    flows_.push_back({rank, rank, stay});
    left_[rank] -= stay;
    wanted_[rank] -= stay;
  }
  const std::span<const Rank> ranks = work_.by_node;
  for (std::size_t begin = 0; begin < ranks.size();) {
    std::size_t end = begin + 1;
    while (end < ranks.size() && work_.same_node(ranks[begin], ranks[end])) ++end;
    match(ranks.subspan(begin, end - begin));
    begin = end;
  }
  match(ranks);
  return flows_;
}

void TokenChoice::match(std::span<const Rank> ranks) {
  auto target = ranks.begin();
  for (const Rank source : ranks) {
    while (left_[source] > 0) {
      while (target != ranks.end() && wanted_[*target] == 0) ++target;
      if (target == ranks.end()) return;
      const Copies copies = std::min(left_[source], wanted_[*target]);
      flows_.push_back({source, *target, copies});
      left_[source] -= copies;
      wanted_[*target] -= copies;
    }
  }
}

ShareList::ShareList(const Workload& work, std::span<const Loan> loans)
    : work_(work), loans_(loans.size()), first_loan_(work.request.experts + 1) {
  for (const Loan& loan : loans) ++first_loan_[loan.expert + 1];
  for (Expert expert = 0; expert < work.request.experts; ++expert) {
    if (first_loan_[expert + 1] > 0) lent_.push_back(expert);
    first_loan_[expert + 1] += first_loan_[expert];
  }
  std::vector<std::uint32_t> next(first_loan_.begin(), first_loan_.end() - 1);
  for (const Loan& loan : loans) loans_[next[loan.expert]++] = loan;
}

std::span<const Share> ShareList::of(Expert expert) {
  shares_.clear();
  shares_.push_back({work_.request.owners[expert], work_.expert_copies[expert]});
  for (std::uint32_t i = first_loan_[expert]; i < first_loan_[expert + 1]; ++i) {
    shares_.front().copies -= loans_[i].copies;
    shares_.push_back({loans_[i].target, loans_[i].copies});
  }
  PCCL_CHECK(shares_.front().copies >= 0);
  if (shares_.front().copies == 0) shares_.erase(shares_.begin());
  return shares_;
}

}  // namespace pccl::moe
