// An all_reduce, a reduce_scatter or an all_gather on the ring: each chunk goes to the next rank as soon as it has
// come, combined. ring_schedule.h says which.
//
// In place, an all_reduce overwrites its input while it may still fail. Before a chunk of it is overwritten for the
// first time, it is copied to a backup from the pool, which is as long as the input; restore() copies back what was
// saved. A reduce_scatter keeps what it passes on in memory from the pool, as long as its input; where everybody is
// linked pairwise_reduce_scatter.h does without. Nothing else needs memory.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/op.h"
#include "collective/ring_schedule.h"

namespace pccl {

class RingOp final : public Op {
 public:
  // As a part of another op: the result has that many contributions, and who has it keeps the input or not.
  struct Part {
    std::uint32_t contributions = 0;
    bool keeps_input = false;
  };

  RingOp(const Request& request, const Context& context) : RingOp(request, context, {context.seat.ranks, false}) {}
  RingOp(const Request& request, const Context& context, const Part& part);
  ~RingOp() override;

  bool prepare() override;
  Turn turn(std::uint32_t from, const DataBody& body) const override;
  std::uint8_t* receive_begin(std::uint32_t from, const DataBody& body) override;
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;
  bool done() const override { return received_count_ == received_total_; }
  void restore() override;

 private:
  bool is(Collective kind) const { return call().kind == kind; }
  bool keeps_backup() const {
    return is(Collective::all_reduce) && call().send == call().recv && !part_.keeps_input;
  }
  std::size_t offset(const RingSchedule::Chunk& chunk) const { return chunk.begin_element * element_bytes(); }
  std::size_t bytes(const RingSchedule::Chunk& chunk) const { return chunk.elements * element_bytes(); }
  std::uint8_t* output(const RingSchedule::Chunk& chunk) const;
  const std::uint8_t* payload_of(const RingSchedule::Chunk& chunk) const;
  std::size_t bit(std::uint32_t step, std::uint64_t chunk) const { return step * schedule_.chunks_max() + chunk; }
  void save_once(const RingSchedule::Chunk& chunk);

  const Part part_;
  const RingSchedule schedule_;
  // By bit().
  std::vector<bool> received_;
  std::vector<bool> sent_;
  std::vector<bool> saved_;
  std::uint64_t received_count_ = 0;
  std::uint64_t received_total_ = 0;
  std::uint64_t own_sent_ = 0;  // chunks of the first step
  // Chunks of later steps that have come and can be sent, and those to be sent again.
  struct Sendable {
    std::uint32_t step = 0;
    std::uint64_t chunk = 0;
  };
  std::deque<Sendable> sendable_;
  BufferPool::Buffer backup_;   // of an all_reduce in place
  BufferPool::Buffer partial_;  // of a reduce_scatter
};

}  // namespace pccl
