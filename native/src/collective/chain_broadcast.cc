#include "collective/chain_broadcast.h"

namespace pccl {

ChainBroadcast::ChainBroadcast(const Request& request, const Context& context)
    : Op(request, context, Algorithm::chain) {
  set_partners(seat().fully_linked ? seat().others() : seat().neighbours(), seat().fully_linked);
  const std::uint64_t bytes = call().recv_count * element_bytes();
  if (!first()) in_ = {call().recv, bytes};
  out_ = {call().recv, bytes};
  if (first()) out_.add_all();
}

Op::Turn ChainBroadcast::turn(std::uint32_t from, const DataBody& body) const {
  if (first() || from != seat().previous() || body.step != 0) return Turn::wrong;
  return in_.turn(body);
}

void ChainBroadcast::receive_end(std::uint32_t, const DataBody& body, const std::uint8_t*) {
  if (!in_.end(body)) return;
  count_received(header_bytes + body.bytes);
  if (last()) return;
  out_.add(body.chunk);
  wire().wake(seat().next());
}

std::optional<Op::Outgoing> ChainBroadcast::next_send(std::uint32_t to) {
  if (to != seat().next()) return std::nullopt;
  const auto next = out_.next(0);
  if (next) count_sent(header_bytes + next->body.bytes);
  return next;
}

void ChainBroadcast::send_again(std::uint32_t to, const DataBody& body) {
  out_.again(body.chunk);
  wire().wake(to);
}

}  // namespace pccl
