#include "collective/hierarchical_reduce.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace pccl {

HierarchicalReduce::HierarchicalReduce(const Request& request, const Context& context, std::unique_ptr<Op> links)
    : DirectReduce(request, context, Algorithm::hierarchical, std::move(links)),
      leaders_(context.hosts.leaders()),
      leader_wire_(wire(), leaders_) {
  const auto position = position_of(seat().rank);
  if (!position) return;
  Request of_ring = request;
  const bool is_alone = mates().size() == 1;
  // The host's sum is in the output.
  if (!is_alone) of_ring.call.send = of_ring.call.recv;
  const auto count = static_cast<std::uint32_t>(leaders_.size());
  const Context at{{.rank = *position, .ranks = count}, leader_wire_, context.pool, context.hosts};
  ring_ = std::make_unique<RingOp>(of_ring, at, RingOp::Part{.contributions = seat().ranks, .keeps_input = !is_alone});
}

std::optional<std::uint32_t> HierarchicalReduce::position_of(std::uint32_t rank) const {
  const auto found = std::find(leaders_.begin(), leaders_.end(), rank);
  if (found == leaders_.end()) return std::nullopt;
  return static_cast<std::uint32_t>(found - leaders_.begin());
}

bool HierarchicalReduce::begin() {
  if (mates().size() > 1) return DirectReduce::begin();
  slices().front().taken = slices().front().length;
  return true;
}

bool HierarchicalReduce::on_word(std::uint32_t from, const StepBody& body) {
  if (body.step == leader_step) {
    if (!ring_ || from != leaders_[(*position_of(seat().rank) + 1) % leaders_.size()]) return false;
    next_runs_ = true;
    if (ring_runs_) wire().wake(from);
    return true;
  }
  if (body.step == result_step) {
    if (ring_ || from != mates().front()) return false;
    result_is_there_ = true;
    return true;
  }
  return DirectReduce::on_word(from, body);
}

DirectOp::Piece HierarchicalReduce::copy_piece() {
  if (!slices_are_complete()) {
    const Piece piece = DirectReduce::copy_piece();
    if (piece != Piece::copied || !slices_are_complete()) return piece;
  }
  if (!ring_) return result_is_there_ ? take_result() : Piece::idle;
  if (!ring_runs_) run_ring();
  return Piece::idle;
}

void HierarchicalReduce::run_ring() {
  ring_runs_ = ring_->prepare();
  if (!ring_runs_) return fail_for_memory();
  const auto count = static_cast<std::uint32_t>(leaders_.size());
  const std::uint32_t position = *position_of(seat().rank);
  wire().send_step(leaders_[(position + count - 1) % count], {leader_step, 0});
  wire().wake(leaders_[(position + 1) % count]);
}

Op::Turn HierarchicalReduce::turn(std::uint32_t from, const DataBody& body) const {
  if (!is_direct()) return DirectReduce::turn(from, body);
  const auto position = position_of(from);
  return is_ring_running() && position ? ring_->turn(*position, body) : Turn::wrong;
}

std::uint8_t* HierarchicalReduce::receive_begin(std::uint32_t from, const DataBody& body) {
  return is_direct() ? ring_->receive_begin(*position_of(from), body) : DirectReduce::receive_begin(from, body);
}

void HierarchicalReduce::receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) {
  if (!is_direct()) return DirectReduce::receive_end(from, body, payload);
  ring_->receive_end(*position_of(from), body, payload);
  if (ring_->done()) tell_result();
}

void HierarchicalReduce::tell_result() {
  for (const std::uint32_t rank : mates()) {
    if (rank != seat().rank) wire().send_step(rank, {result_step, 0});
  }
}

std::optional<Op::Outgoing> HierarchicalReduce::next_send(std::uint32_t to) {
  if (!is_direct()) return DirectReduce::next_send(to);
  const auto position = position_of(to);
  return is_ring_running() && next_runs_ && position ? ring_->next_send(*position) : std::nullopt;
}

void HierarchicalReduce::send_again(std::uint32_t to, const DataBody& body) {
  if (!is_direct()) return DirectReduce::send_again(to, body);
  ring_->send_again(*position_of(to), body);
}

// All of it, in order; the slices tell what isn't in the backup yet.
DirectOp::Piece HierarchicalReduce::take_result() {
  for (Slice& slice : slices()) {
    if (result_taken_ >= slice.begin + slice.length) continue;
    const std::uint64_t left = slice.begin + slice.length - result_taken_;
    if (!owns(slice)) save(slice, std::min<std::uint64_t>(limits::direct_copy_bytes / element_bytes(), left));
    const std::uint64_t taken = take_from(partner(mates().front()), result_taken_, left);
    if (taken == 0) return Piece::failed;
    if (!owns(slice)) slice.taken += taken;
    result_taken_ += taken;
    return Piece::copied;
  }
  return Piece::idle;
}

bool HierarchicalReduce::complete() const {
  return ring_ ? ring_runs_ && ring_->done() : result_taken_ == call().recv_count;
}

void HierarchicalReduce::undo() {
  if (ring_runs_ && mates().size() == 1) ring_->restore();
  DirectReduce::undo();
}

OpResult HierarchicalReduce::result(std::optional<Error> error) const {
  OpResult result = DirectReduce::result(std::move(error));
  if (!is_direct() || !ring_) return result;
  const OpResult of_ring = ring_->result(std::nullopt);
  result.tx_bytes += of_ring.tx_bytes;
  result.rx_bytes += of_ring.rx_bytes;
  return result;
}

}  // namespace pccl
