// A broadcast along the ring, from the root on: each chunk goes to the next rank as soon as it has come. It needs no
// memory but the caller's.
//
// In a group whose members aren't all linked the root hears of its neighbours' calls only, so from then on it can't
// withdraw any more.
#pragma once

#include <cstdint>
#include <optional>

#include "collective/block.h"
#include "collective/op.h"

namespace pccl {

class ChainBroadcast final : public Op {
 public:
  ChainBroadcast(const Request& request, const Context& context);

  Turn turn(std::uint32_t from, const DataBody& body) const override;
  std::uint8_t* receive_begin(std::uint32_t, const DataBody& body) override { return in_.place(body); }
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;
  bool done() const override { return in_.whole(); }

 private:
  bool first() const { return seat().rank == seat().peer_rank; }
  bool last() const { return seat().next() == seat().peer_rank; }

  IncomingBlock in_;   // of no bytes at the root
  OutgoingBlock out_;  // of no chunks at the end of the chain
};

}  // namespace pccl
