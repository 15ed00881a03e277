#include "collective/ring_op.h"

#include <cstring>
#include <utility>

#include "reduce/kernels.h"

namespace pccl {
namespace {

RingSchedule schedule_of(const CollectiveCall& call, const Op::Seat& seat, std::size_t element_bytes) {
  const auto element = static_cast<std::uint32_t>(element_bytes);
  if (call.kind == Collective::all_reduce) {
    return RingSchedule::all_reduce(seat.rank, seat.ranks, call.recv_count, element);
  }
  return call.kind == Collective::reduce_scatter
             ? RingSchedule::reduce_scatter(seat.rank, seat.ranks, call.recv_count, element)
             : RingSchedule::all_gather(seat.rank, seat.ranks, call.send_count, element);
}

}  // namespace

RingOp::RingOp(const Request& request, const Context& context, const Part& part)
    : Op(request, context, Algorithm::ring),
      part_(part),
      schedule_(schedule_of(call(), seat(), element_bytes())),
      received_(schedule_.steps() * schedule_.chunks_max()),
      sent_(received_.size()) {
  set_partners(seat().neighbours(), false);
  for (std::uint32_t step = schedule_.first_step(); step < schedule_.steps(); ++step) {
    received_total_ += schedule_.chunks(schedule_.received_slice(step));
  }
}

RingOp::~RingOp() {
  pool_.give_back(std::move(backup_));
  pool_.give_back(std::move(partial_));
}

bool RingOp::prepare() {
  if (is(Collective::reduce_scatter)) {
    partial_ = pool_.take(call().send_count * element_bytes());
    return partial_.memory != nullptr;
  }
  if (is(Collective::all_gather)) {
    const std::size_t own = call().send_count * element_bytes();
    std::uint8_t* const into = static_cast<std::uint8_t*>(call().recv) + seat().rank * own;
    if (into != call().send) std::memcpy(into, call().send, own);
    return true;
  }
  if (!keeps_backup()) return true;
  saved_.resize(seat().ranks * schedule_.chunks_max());
  backup_ = pool_.take(call().recv_count * element_bytes());
  return backup_.memory != nullptr;
}

Op::Turn RingOp::turn(std::uint32_t from, const DataBody& body) const {
  if (from != seat().previous() || body.step < schedule_.first_step() || body.step >= schedule_.steps() ||
      body.chunk >= schedule_.chunks(schedule_.received_slice(body.step))) {
    return Turn::wrong;
  }
  if (body.bytes != bytes(schedule_.received_chunk(body.step, body.chunk))) return Turn::wrong;
  // A final value is made from what this rank has sent of those elements, so it can't come before.
  const bool final = is(Collective::all_reduce) && !schedule_.combines(body.step);
  if (final && !sent_[bit(body.step - (seat().ranks - 1), body.chunk)]) return Turn::wrong;
  return received_[bit(body.step, body.chunk)] ? Turn::received : Turn::wanted;
}

std::uint8_t* RingOp::receive_begin(std::uint32_t, const DataBody& body) {
  if (schedule_.combines(body.step)) return nullptr;
  const RingSchedule::Chunk chunk = schedule_.received_chunk(body.step, body.chunk);
  save_once(chunk);
  return output(chunk);
}

void RingOp::receive_end(std::uint32_t, const DataBody& body, const std::uint8_t* payload) {
  // Two lanes may have brought it at once.
  if (received_[bit(body.step, body.chunk)]) return;
  received_[bit(body.step, body.chunk)] = true;
  ++received_count_;
  const RingSchedule::Chunk chunk = schedule_.received_chunk(body.step, body.chunk);
  if (schedule_.combines(chunk.step)) {
    save_once(chunk);
    const auto* const local = static_cast<const std::uint8_t*>(call().send) + offset(chunk);
    const auto [dtype, op] = std::pair(call().dtype, call().op);
    if (chunk.step == schedule_.last_combining_step()) {
      combine_last(dtype, op, output(chunk), local, payload, chunk.elements, part_.contributions);
    } else {
      combine(dtype, op, output(chunk), local, payload, chunk.elements);
    }
  }
  count_received(header_bytes + bytes(chunk));
  if (chunk.step + 1 == schedule_.steps()) return;
  sendable_.push_back({chunk.step + 1, chunk.index});
  wire().wake(seat().next());
}

std::optional<Op::Outgoing> RingOp::next_send(std::uint32_t to) {
  if (to != seat().next()) return std::nullopt;
  Sendable next;
  if (own_sent_ < schedule_.chunks(schedule_.sent_slice(schedule_.first_step()))) {
    next = {schedule_.first_step(), own_sent_++};
  } else if (!sendable_.empty()) {
    next = sendable_.front();
    sendable_.pop_front();
  } else {
    return std::nullopt;
  }
  sent_[bit(next.step, next.chunk)] = true;
  const RingSchedule::Chunk chunk = schedule_.sent_chunk(next.step, next.chunk);
  const auto size = static_cast<std::uint32_t>(bytes(chunk));
  count_sent(header_bytes + size);
  return Outgoing{{chunk.step, chunk.index, size}, payload_of(chunk)};
}

// Where what comes is put, and sent on from.
std::uint8_t* RingOp::output(const RingSchedule::Chunk& chunk) const {
  auto* const recv = static_cast<std::uint8_t*>(call().recv);
  if (!is(Collective::reduce_scatter)) return recv + offset(chunk);
  if (chunk.step != schedule_.last_combining_step()) return partial_.memory.get() + offset(chunk);
  return recv + offset(chunk) - seat().rank * call().recv_count * element_bytes();
}

// A chunk to be sent. The first step of a reduction sends the input; an all_gather has its own block where the others'
// come.
const std::uint8_t* RingOp::payload_of(const RingSchedule::Chunk& chunk) const {
  const auto* const send = static_cast<const std::uint8_t*>(call().send);
  const auto* const recv = static_cast<const std::uint8_t*>(call().recv);
  if (chunk.step == 0) return send + offset(chunk);
  return (is(Collective::reduce_scatter) ? partial_.memory.get() : recv) + offset(chunk);
}

void RingOp::send_again(std::uint32_t to, const DataBody& body) {
  sent_[bit(body.step, body.chunk)] = false;
  sendable_.push_front({body.step, body.chunk});
  wire().wake(to);
}

// The first N steps receive each slice once, so the chunks of those are the ones that overwrite input.
void RingOp::save_once(const RingSchedule::Chunk& chunk) {
  if (!keeps_backup() || chunk.step >= seat().ranks || saved_[bit(chunk.step, chunk.index)]) return;
  std::memcpy(backup_.memory.get() + offset(chunk), output(chunk), bytes(chunk));
  saved_[bit(chunk.step, chunk.index)] = true;
}

void RingOp::restore() {
  for (std::size_t at = 0; at < saved_.size(); ++at) {
    if (!saved_[at]) continue;
    const auto step = static_cast<std::uint32_t>(at / schedule_.chunks_max());
    const RingSchedule::Chunk chunk = schedule_.received_chunk(step, at % schedule_.chunks_max());
    std::memcpy(output(chunk), backup_.memory.get() + offset(chunk), bytes(chunk));
  }
  saved_.clear();
}

}  // namespace pccl
