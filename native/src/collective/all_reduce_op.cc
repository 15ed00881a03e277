#include "collective/all_reduce_op.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "reduce/kernels.h"

namespace pccl {

AllReduceOp::AllReduceOp(const Request& request, std::uint32_t rank, std::uint32_t ranks, BufferPool& pool)
    : request_(request),
      ranks_(ranks),
      element_bytes_(static_cast<std::uint32_t>(element_bytes(request.call.dtype))),
      schedule_(rank, ranks, request.call.count, element_bytes_),
      received_(schedule_.steps() * schedule_.chunks_max()),
      sent_(received_.size()),
      pool_(pool) {
  for (std::uint32_t step = 0; step < schedule_.steps(); ++step) {
    received_total_ += schedule_.chunks(schedule_.received_slice(step));
  }
}

AllReduceOp::~AllReduceOp() { pool_.give_back(std::move(backup_)); }

bool AllReduceOp::prepare() {
  const std::size_t total = request_.call.count * element_bytes_;
  if (ranks_ == 1) {
    if (!in_place()) std::memcpy(request_.call.recv, request_.call.send, total);
    return true;
  }
  if (!in_place()) return true;
  saved_.resize(ranks_ * schedule_.chunks_max());
  backup_ = pool_.take(total);
  return backup_.memory != nullptr;
}

AllReduceOp::Turn AllReduceOp::turn(const DataBody& body) const {
  if (body.step >= schedule_.steps() || body.chunk >= schedule_.chunks(schedule_.received_slice(body.step))) {
    return Turn::wrong;
  }
  if (body.bytes != bytes(schedule_.received_chunk(body.step, body.chunk))) return Turn::wrong;
  // A final value is made from what this rank has sent of those elements, so it can't come before.
  const bool final = !schedule_.combines(body.step);
  if (final && !sent_[bit(body.step - (ranks_ - 1), body.chunk)]) return Turn::wrong;
  return received_[bit(body.step, body.chunk)] ? Turn::received : Turn::wanted;
}

std::uint8_t* AllReduceOp::receive_begin(const DataBody& body) {
  if (schedule_.combines(body.step)) return nullptr;
  const RingSchedule::Chunk chunk = schedule_.received_chunk(body.step, body.chunk);
  save_once(chunk);
  return output(chunk);
}

void AllReduceOp::receive_end(const DataBody& body, const std::uint8_t* payload) {
  // Two lanes may have brought it at once.
  if (received_[bit(body.step, body.chunk)]) return;
  received_[bit(body.step, body.chunk)] = true;
  ++received_count_;
  const RingSchedule::Chunk chunk = schedule_.received_chunk(body.step, body.chunk);
  if (schedule_.combines(chunk.step)) {
    save_once(chunk);
    const auto* const local = static_cast<const std::uint8_t*>(request_.call.send) + offset(chunk);
    const auto [dtype, op] = std::pair(request_.call.dtype, request_.call.op);
    if (chunk.step == schedule_.last_combining_step()) {
      combine_last(dtype, op, output(chunk), local, payload, chunk.elements, ranks_);
    } else {
      combine(dtype, op, output(chunk), local, payload, chunk.elements);
    }
  }
  rx_bytes_ += header_bytes + bytes(chunk);
  if (chunk.step + 1 < schedule_.steps()) sendable_.push_back({chunk.step + 1, chunk.index});
}

std::optional<AllReduceOp::Outgoing> AllReduceOp::next_send() {
  Sendable next;
  if (own_sent_ < schedule_.chunks(schedule_.sent_slice(0)) && ranks_ > 1) {
    next = {0, own_sent_++};
  } else if (!sendable_.empty()) {
    next = sendable_.front();
    sendable_.pop_front();
  } else {
    return std::nullopt;
  }
  sent_[bit(next.step, next.chunk)] = true;
  const RingSchedule::Chunk chunk = schedule_.sent_chunk(next.step, next.chunk);
  const void* const from = chunk.step == 0 ? request_.call.send : request_.call.recv;
  const auto size = static_cast<std::uint32_t>(bytes(chunk));
  tx_bytes_ += header_bytes + size;
  return Outgoing{{chunk.step, chunk.index, size}, static_cast<const std::uint8_t*>(from) + offset(chunk)};
}

void AllReduceOp::send_again(const DataBody& body) {
  sent_[bit(body.step, body.chunk)] = false;
  sendable_.push_front({body.step, body.chunk});
}

// The first ranks_ steps receive each slice once, so the chunks of those are the ones that overwrite input.
void AllReduceOp::save_once(const RingSchedule::Chunk& chunk) {
  if (!in_place() || chunk.step >= ranks_ || saved_[bit(chunk.step, chunk.index)]) return;
  std::memcpy(backup_.memory.get() + offset(chunk), output(chunk), bytes(chunk));
  saved_[bit(chunk.step, chunk.index)] = true;
}

void AllReduceOp::restore() {
  for (std::size_t at = 0; at < saved_.size(); ++at) {
    if (!saved_[at]) continue;
    const auto step = static_cast<std::uint32_t>(at / schedule_.chunks_max());
    const RingSchedule::Chunk chunk = schedule_.received_chunk(step, at % schedule_.chunks_max());
    std::memcpy(output(chunk), backup_.memory.get() + offset(chunk), bytes(chunk));
  }
  saved_.clear();
}

OpResult AllReduceOp::result(std::optional<Error> error) const {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - request_.posted;
  return {.error = std::move(error),
          .world_size = ranks_,
          .tx_bytes = tx_bytes_,
          .rx_bytes = rx_bytes_,
          .seconds = time.count()};
}

}  // namespace pccl
