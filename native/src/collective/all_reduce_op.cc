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
      receive_(schedule_, false),
      send_(schedule_, true),
      pool_(pool) {}

AllReduceOp::~AllReduceOp() { pool_.give_back(std::move(backup_)); }

bool AllReduceOp::prepare() {
  const std::size_t total = request_.call.count * element_bytes_;
  if (ranks_ == 1) {
    if (!in_place()) std::memcpy(request_.call.recv, request_.call.send, total);
    return true;
  }
  if (!in_place()) return true;
  backup_ = pool_.take(total);
  return backup_.memory != nullptr;
}

bool AllReduceOp::expects(const DataBody& body) const {
  if (receive_.at_end()) return false;
  const RingSchedule::Chunk chunk = receive_.chunk();
  return body.step == chunk.step && body.chunk == chunk.index && body.bytes == bytes(chunk);
}

std::uint8_t* AllReduceOp::receive_begin(std::uint8_t* scratch) {
  const RingSchedule::Chunk chunk = receive_.chunk();
  if (schedule_.combines(chunk.step)) return scratch;
  save_once(chunk);
  return static_cast<std::uint8_t*>(request_.call.recv) + offset(chunk);
}

void AllReduceOp::receive_end(const std::uint8_t* payload) {
  const RingSchedule::Chunk chunk = receive_.chunk();
  if (schedule_.combines(chunk.step)) {
    save_once(chunk);
    const auto* const local = static_cast<const std::uint8_t*>(request_.call.send) + offset(chunk);
    auto* const into = static_cast<std::uint8_t*>(request_.call.recv) + offset(chunk);
    const auto [dtype, op] = std::pair(request_.call.dtype, request_.call.op);
    if (chunk.step == schedule_.last_combining_step()) {
      combine_last(dtype, op, into, local, payload, chunk.elements, ranks_);
    } else {
      combine(dtype, op, into, local, payload, chunk.elements);
    }
  }
  rx_bytes_ += header_bytes + bytes(chunk);
  receive_.advance();
}

std::optional<AllReduceOp::Outgoing> AllReduceOp::next_send() {
  if (send_.at_end()) return std::nullopt;
  const std::uint64_t first_slice_chunks = schedule_.chunks(schedule_.sent_slice(0));
  if (send_.passed() >= first_slice_chunks + receive_.passed()) return std::nullopt;
  const RingSchedule::Chunk chunk = send_.chunk();
  const void* const from = chunk.step == 0 ? request_.call.send : request_.call.recv;
  const auto size = static_cast<std::uint32_t>(bytes(chunk));
  send_.advance();
  tx_bytes_ += header_bytes + size;
  return Outgoing{{chunk.step, chunk.index, size}, static_cast<const std::uint8_t*>(from) + offset(chunk)};
}

// The first ranks_ steps receive each slice once, so the chunks of those are the ones that overwrite input, and
// their order tells which are saved.
void AllReduceOp::save_once(const RingSchedule::Chunk& chunk) {
  if (!in_place() || chunk.step >= ranks_ || saved_chunks_ > receive_.passed()) return;
  const auto* const input = static_cast<const std::uint8_t*>(request_.call.recv) + offset(chunk);
  std::memcpy(backup_.memory.get() + offset(chunk), input, bytes(chunk));
  ++saved_chunks_;
}

void AllReduceOp::restore() {
  if (!in_place() || ranks_ == 1) return;
  RingSchedule::Cursor at(schedule_, false);
  for (; at.passed() < saved_chunks_; at.advance()) {
    const RingSchedule::Chunk chunk = at.chunk();
    auto* const input = static_cast<std::uint8_t*>(request_.call.recv) + offset(chunk);
    std::memcpy(input, backup_.memory.get() + offset(chunk), bytes(chunk));
  }
  saved_chunks_ = 0;
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
