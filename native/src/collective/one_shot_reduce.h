// A short all_reduce or reduce_scatter: every member sends every other one its contribution along with its `ready`,
// and each combines all of them in rank order, so that all come to the same bits. Two message delays in all, where the
// ring has 2N.
//
// Memory: the contributions of all members, each at most one_shot_bytes_max long. This rank's own is a copy, which
// also brings the input of an all_reduce in place back.
#pragma once

#include <cstdint>
#include <vector>

#include "collective/op.h"

namespace pccl {

class OneShotReduce final : public Op {
 public:
  OneShotReduce(const Request& request, const Context& context);

  Payload ready_payload(std::uint32_t rank) override;
  Answer on_ready(std::uint32_t rank, const Payload& payload, Difference& difference) override;
  bool done() const override { return left_ == 0; }
  void restore() override;

 private:
  // What this rank contributes to that one's result.
  Payload contribution_to(std::uint32_t rank) const;
  void combine_all();

  const std::size_t bytes_;  // of a contribution
  std::vector<Payload> contributions_;
  std::uint32_t left_ = 0;
};

}  // namespace pccl
