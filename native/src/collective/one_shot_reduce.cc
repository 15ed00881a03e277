#include "collective/one_shot_reduce.h"

#include <cstring>
#include <memory>

#include "reduce/kernels.h"

namespace pccl {

OneShotReduce::OneShotReduce(const Request& request, const Context& context)
    : Op(request, context, Algorithm::one_shot),
      bytes_(call().recv_count * element_bytes()),
      contributions_(seat().ranks),
      left_(seat().ranks - 1) {
  set_partners(seat().others(), true);
  contributions_[seat().rank] = contribution_to(seat().rank);
}

Payload OneShotReduce::contribution_to(std::uint32_t rank) const {
  const auto* from = static_cast<const std::uint8_t*>(call().send);
  if (call().kind == Collective::reduce_scatter) from += rank * bytes_;
  return std::make_shared<const std::vector<std::uint8_t>>(from, from + bytes_);
}

Payload OneShotReduce::ready_payload(std::uint32_t rank) {
  count_sent(header_bytes + bytes_);
  return call().kind == Collective::all_reduce ? contributions_[seat().rank] : contribution_to(rank);
}

Op::Answer OneShotReduce::on_ready(std::uint32_t rank, const Payload& payload, Difference&) {
  if (!payload || payload->size() != bytes_) return Answer::wrong;
  count_received(header_bytes + bytes_);
  contributions_[rank] = payload;
  if (--left_ == 0) combine_all();
  return Answer::agreed;
}

void OneShotReduce::combine_all() {
  const auto [dtype, op] = std::pair(call().dtype, call().op);
  const std::size_t count = call().recv_count;
  const std::uint32_t last = seat().ranks - 1;
  const void* sum = contributions_[0]->data();
  for (std::uint32_t rank = 1; rank < last; ++rank) {
    combine(dtype, op, call().recv, sum, contributions_[rank]->data(), count);
    sum = call().recv;
  }
  combine_last(dtype, op, call().recv, sum, contributions_[last]->data(), count, seat().ranks);
}

void OneShotReduce::restore() {
  if (call().send == call().recv && left_ == 0) {
    std::memcpy(call().recv, contributions_[seat().rank]->data(), bytes_);
  }
}

}  // namespace pccl
