#include "collective/blocks_op.h"

#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "base/little_endian.h"
#include "collective/crossover.h"

namespace pccl {
namespace {

constexpr std::size_t counts_bytes = 16;

std::vector<std::uint32_t> partners_of(const CollectiveCall& call, const Op::Seat& seat) {
  if (call.kind == Collective::send || call.kind == Collective::recv) return {seat.peer_rank};
  return seat.fully_linked ? seat.others() : seat.neighbours();
}

bool same_for_all(const CollectiveCall& call) {
  return call.kind == Collective::broadcast || call.kind == Collective::all_gather;
}

}  // namespace

BlocksOp::BlocksOp(const Request& request, const Context& context)
    : Op(request, context, Algorithm::pairwise), counts_in_ready_(call().kind == Collective::all_to_all) {
  const bool of_two = call().kind == Collective::send || call().kind == Collective::recv;
  set_partners(partners_of(call(), seat()), of_two || seat().fully_linked);
  for (const std::uint32_t rank : partners()) exchanges_[rank];
  readies_left_ = partners().size();
  plan_blocks();
  for (const auto& [rank, exchange] : exchanges_) incoming_left_ += exchange.in.whole() ? 0 : 1;
  own_copied_ = own_bytes_ == 0 || own_from_ == own_to_;
}

// Elements of an all_to_all.
std::uint64_t BlocksOp::send_count(std::uint32_t rank) const {
  return call().send_counts.empty() ? call().send_count / seat().ranks : call().send_counts[rank];
}
std::uint64_t BlocksOp::recv_count(std::uint32_t rank) const {
  return call().recv_counts.empty() ? call().recv_count / seat().ranks : call().recv_counts[rank];
}

void BlocksOp::plan_blocks() {
  const auto* const send = static_cast<const std::uint8_t*>(call().send);
  auto* const recv = static_cast<std::uint8_t*>(call().recv);
  const std::uint64_t send_bytes = call().send_count * element_bytes();
  const std::uint64_t recv_bytes = call().recv_count * element_bytes();
  const bool root = seat().rank == seat().peer_rank;
  const auto set_own = [&](const std::uint8_t* from, std::uint8_t* to, std::uint64_t bytes) {
    own_from_ = from;
    own_to_ = to;
    own_bytes_ = bytes;
  };
  switch (call().kind) {
    case Collective::all_to_all: {
      std::uint64_t send_at = 0;
      std::uint64_t recv_at = 0;
      for (std::uint32_t rank = 0; rank < seat().ranks; ++rank) {
        const std::uint64_t out = send_count(rank) * element_bytes();
        const std::uint64_t in = recv_count(rank) * element_bytes();
        if (rank == seat().rank) {
          set_own(send + send_at, recv + recv_at, out);
        } else {
          exchanges_[rank] = {{send + send_at, out}, {recv + recv_at, in}};
        }
        send_at += out;
        recv_at += in;
      }
      break;
    }
    case Collective::all_gather:
      for (auto& [rank, exchange] : exchanges_) exchange = {{send, send_bytes}, {recv + rank * send_bytes, send_bytes}};
      set_own(send, recv + seat().rank * send_bytes, send_bytes);
      break;
    case Collective::broadcast:
      if (!root) exchanges_[seat().peer_rank].in = {recv, recv_bytes};
      for (auto& [rank, exchange] : exchanges_) {
        if (root) exchange.out = {recv, recv_bytes};
      }
      break;
    case Collective::gather:
      if (!root) exchanges_[seat().peer_rank].out = {send, send_bytes};
      for (auto& [rank, exchange] : exchanges_) {
        if (root) exchange.in = {recv + rank * send_bytes, send_bytes};
      }
      if (root) set_own(send, recv + seat().rank * send_bytes, send_bytes);
      break;
    case Collective::scatter:
      if (!root) exchanges_[seat().peer_rank].in = {recv, recv_bytes};
      for (auto& [rank, exchange] : exchanges_) {
        if (root) exchange.out = {send + rank * recv_bytes, recv_bytes};
      }
      if (root) set_own(send + seat().rank * recv_bytes, recv, recv_bytes);
      break;
    case Collective::send:
      exchanges_[seat().peer_rank].out = {send, send_bytes};
      break;
    case Collective::recv:
      exchanges_[seat().peer_rank].in = {recv, recv_bytes};
      break;
    case Collective::barrier:
    case Collective::all_reduce:
    case Collective::reduce_scatter:
      break;
  }
}

Payload BlocksOp::ready_payload(std::uint32_t rank) {
  OutgoingBlock& out = exchanges_.at(rank).out;
  const bool goes_along = out.bytes() > 0 && out.bytes() <= block_in_ready_bytes_max;
  if (!goes_along) out.add_all();
  if (goes_along) count_sent(header_bytes + out.bytes());
  if (same_for_all_) return same_for_all_;
  const std::size_t counts = counts_in_ready_ ? counts_bytes : 0;
  if (counts == 0 && !goes_along) return nullptr;
  auto payload = std::make_shared<std::vector<std::uint8_t>>(counts + (goes_along ? out.bytes() : 0));
  if (counts_in_ready_) {
    store_le(payload->data(), send_count(rank));
    store_le(payload->data() + 8, recv_count(rank));
  }
  if (goes_along) std::memcpy(payload->data() + counts, out.memory(), out.bytes());
  if (same_for_all(call())) same_for_all_ = payload;
  return payload;
}

Op::Answer BlocksOp::on_ready(std::uint32_t rank, const Payload& payload, Difference& difference) {
  IncomingBlock& in = exchanges_.at(rank).in;
  std::span<const std::uint8_t> carried;
  if (payload) carried = *payload;
  if (counts_in_ready_) {
    if (carried.size() < counts_bytes) return Answer::wrong;
    const auto theirs_for_us = load_le<std::uint64_t>(carried.data());
    const auto theirs_from_us = load_le<std::uint64_t>(carried.data() + 8);
    carried = carried.subspan(counts_bytes);
    if (theirs_for_us != recv_count(rank) || theirs_from_us != send_count(rank)) {
      const bool incoming = theirs_for_us != recv_count(rank);
      difference.first.count = incoming ? recv_count(rank) : send_count(rank);
      difference.second.count = incoming ? theirs_for_us : theirs_from_us;
      return Answer::differs;
    }
  }
  if (!carried.empty()) {
    if (carried.size() != in.bytes()) return Answer::wrong;
    std::memcpy(in.memory(), carried.data(), carried.size());
    in.set_whole();
    --incoming_left_;
    count_received(header_bytes + carried.size());
  }
  // Late enough to hold nobody up, and early enough to have time until the last block has come.
  if (--readies_left_ == 0) copy_own();
  return Answer::agreed;
}

void BlocksOp::copy_own() {
  if (!own_copied_) std::memcpy(own_to_, own_from_, own_bytes_);
  own_copied_ = true;
}

Op::Turn BlocksOp::turn(std::uint32_t from, const DataBody& body) const {
  const auto exchange = exchanges_.find(from);
  if (exchange == exchanges_.end() || body.step != 0) return Turn::wrong;
  return exchange->second.in.turn(body);
}

std::uint8_t* BlocksOp::receive_begin(std::uint32_t from, const DataBody& body) {
  return exchanges_.at(from).in.place(body);
}

void BlocksOp::receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t*) {
  IncomingBlock& in = exchanges_.at(from).in;
  if (!in.end(body)) return;
  count_received(header_bytes + body.bytes);
  if (in.whole()) --incoming_left_;
}

std::optional<Op::Outgoing> BlocksOp::next_send(std::uint32_t to) {
  const auto exchange = exchanges_.find(to);
  if (exchange == exchanges_.end()) return std::nullopt;
  const auto next = exchange->second.out.next(0);
  if (next) count_sent(header_bytes + next->body.bytes);
  return next;
}

void BlocksOp::send_again(std::uint32_t to, const DataBody& body) {
  exchanges_.at(to).out.again(body.chunk);
  wire().wake(to);
}

}  // namespace pccl
