// Collectives that only move blocks, each straight from its owner's memory to its receiver's: all_to_all, gather,
// scatter, send and recv, a barrier, which has none, and all_gather and broadcast of short blocks. The op needs no
// memory of its own but for short blocks, which go with its `ready`: they are there before their receiver asks.
//
// The `ready` of an all_to_all begins with the number of elements that its sender has for that rank, and the number
// that it expects from it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "collective/block.h"
#include "collective/op.h"

namespace pccl {

class BlocksOp final : public Op {
 public:
  BlocksOp(const Request& request, const Context& context);

  Payload ready_payload(std::uint32_t rank) override;
  Answer on_ready(std::uint32_t rank, const Payload& payload, Difference& difference) override;
  Turn turn(std::uint32_t from, const DataBody& body) const override;
  std::uint8_t* receive_begin(std::uint32_t from, const DataBody& body) override;
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;
  bool done() const override { return own_copied_ && incoming_left_ == 0; }

 private:
  struct Exchange {
    OutgoingBlock out;
    IncomingBlock in;
  };

  std::uint64_t send_count(std::uint32_t rank) const;
  std::uint64_t recv_count(std::uint32_t rank) const;
  void plan_blocks();
  void copy_own();

  const bool counts_in_ready_;
  std::map<std::uint32_t, Exchange> exchanges_;  // by rank, of all partners
  std::uint64_t incoming_left_ = 0;              // blocks that aren't whole yet
  std::size_t readies_left_ = 0;
  Payload same_for_all_;
  // This rank's own block.
  const std::uint8_t* own_from_ = nullptr;
  std::uint8_t* own_to_ = nullptr;
  std::uint64_t own_bytes_ = 0;
  bool own_copied_ = false;
};

}  // namespace pccl
