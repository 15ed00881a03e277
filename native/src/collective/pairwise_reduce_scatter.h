// A reduce_scatter in which everybody sends each block straight to the rank that it is for. It moves as many bytes as
// a ring, and needs no memory but the caller's: what comes is combined at once.
//
// So that the result doesn't depend on who is faster, rank r combines each chunk in one order: its own contribution,
// then those of r-1, r-2, … When it has one of r-k it asks r-k-1 for the same chunk, by a step whose value is the
// chunk's index. Only r-1 sends unasked.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "collective/block.h"
#include "collective/op.h"

namespace pccl {

class PairwiseReduceScatter final : public Op {
 public:
  PairwiseReduceScatter(const Request& request, const Context& context);

  Answer on_ready(std::uint32_t rank, const Payload& payload, Difference& difference) override;
  bool on_step(std::uint32_t from, const StepBody& body) override;
  Turn turn(std::uint32_t from, const DataBody& body) const override;
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;
  bool done() const override { return chunks_left_ == 0; }

 private:
  std::uint32_t behind(std::uint32_t rank) const { return (seat().rank + seat().ranks - rank) % seat().ranks; }
  void ask(std::uint32_t distance, std::uint64_t chunk);

  const std::uint64_t bytes_;  // of a block
  // Of this rank's block, by chunk: how many others' contributions are in it.
  std::vector<std::uint32_t> combined_;
  std::uint64_t chunks_left_;
  std::vector<bool> has_called_;         // by rank
  std::vector<OutgoingBlock> outgoing_;  // by rank
  std::vector<std::vector<bool>> asked_;
};

}  // namespace pccl
