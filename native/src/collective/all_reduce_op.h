// One all-reduce on this peer: where each chunk goes, what has come and gone, and how the caller's input is
// brought back. It does no I/O and knows no other op.
//
// In place, the input is overwritten while the op may still fail. Before a chunk of it is overwritten for the first
// time, it is copied to a backup from the pool; restore() copies back what was saved. Out of place, the input is
// never written and the output means nothing until the op has committed.
//
// Chunks may come in any order, for they come over several connections, and one may have to be sent again.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/ring_schedule.h"
#include "pccl/engine.h"
#include "transport/frame.h"

namespace pccl {

class AllReduceOp {
 public:
  struct Request {
    OpId id = 0;
    AllReduce call;
    std::chrono::steady_clock::time_point posted;
  };

  AllReduceOp(const Request& request, std::uint32_t rank, std::uint32_t ranks, BufferPool& pool);
  ~AllReduceOp();
  AllReduceOp(const AllReduceOp&) = delete;

  OpId id() const { return request_.id; }
  Descriptor descriptor() const { return {request_.call.count, request_.call.dtype, request_.call.op}; }

  // False when there is no memory for the backup; then nothing else may be called.
  bool prepare();

  // The whole result is here.
  bool done() const { return received_count_ == received_total_; }

  enum class Turn : std::uint8_t {
    wanted,
    received,  // it has come before
    wrong,     // no correct peer sends it, or not yet
  };
  Turn turn(const DataBody& body) const;
  // Where the payload of a wanted chunk goes: to the output, or, null, anywhere. The chunk is over with receive_end.
  std::uint8_t* receive_begin(const DataBody& body);
  void receive_end(const DataBody& body, const std::uint8_t* payload);

  struct Outgoing {
    DataBody body;
    const std::uint8_t* payload = nullptr;
  };
  // The next chunk to send; nothing when it hasn't come yet or all are sent.
  std::optional<Outgoing> next_send();
  // This one, which next_send gave, hasn't arrived.
  void send_again(const DataBody& body);

  // In place: the output is the input again.
  void restore();

  OpResult result(std::optional<Error> error) const;

 private:
  bool in_place() const { return request_.call.send == request_.call.recv; }
  std::size_t offset(const RingSchedule::Chunk& chunk) const { return chunk.begin_element * element_bytes_; }
  std::size_t bytes(const RingSchedule::Chunk& chunk) const { return chunk.elements * std::size_t{element_bytes_}; }
  std::uint8_t* output(const RingSchedule::Chunk& chunk) const {
    return static_cast<std::uint8_t*>(request_.call.recv) + offset(chunk);
  }
  std::size_t bit(std::uint32_t step, std::uint64_t chunk) const { return step * schedule_.chunks_max() + chunk; }
  void save_once(const RingSchedule::Chunk& chunk);

  const Request request_;
  const std::uint32_t ranks_;
  const std::uint32_t element_bytes_;
  const RingSchedule schedule_;
  // By bit().
  std::vector<bool> received_;
  std::vector<bool> sent_;
  std::vector<bool> saved_;
  std::uint64_t received_count_ = 0;
  std::uint64_t received_total_ = 0;
  std::uint64_t own_sent_ = 0;  // chunks of step 0
  // Chunks of later steps that have come and can be sent, and those to be sent again.
  struct Sendable {
    std::uint32_t step = 0;
    std::uint64_t chunk = 0;
  };
  std::deque<Sendable> sendable_;
  BufferPool& pool_;
  BufferPool::Buffer backup_;
  std::uint64_t tx_bytes_ = 0;
  std::uint64_t rx_bytes_ = 0;
};

}  // namespace pccl
