#include "collective/direct_blocks.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "collective/crossover.h"

namespace pccl {

DirectBlocks::DirectBlocks(const Request& request, const Context& context, std::unique_ptr<Op> links)
    : DirectOp(request, context, Algorithm::direct, context.hosts.mates(context.seat.rank), std::move(links)) {
  switch (call().kind) {
    case Collective::all_to_all:
      for (const std::uint32_t from : seat().others()) {
        const Part received = part(call().recv_counts, call().recv_count, from);
        // Shorter ones came with the `ready`.
        if (received.elements * element_bytes() > block_in_ready_bytes_max) {
          take(from, received.first, received.elements);
        }
      }
      break;
    case Collective::all_gather:
      for (const std::uint32_t from : seat().others()) take(from, from * call().send_count, call().send_count);
      take_own();
      break;
    case Collective::gather:
      if (!is_root()) break;
      for (const std::uint32_t from : seat().others()) take(from, from * call().send_count, call().send_count);
      break;
    case Collective::broadcast:
    case Collective::scatter:
      if (!is_root()) take(seat().peer_rank, 0, call().recv_count);
      break;
    case Collective::recv:
      take(seat().peer_rank, 0, call().recv_count);
      break;
    case Collective::send:
      break;
    default:
      PCCL_CHECK(false);
  }
}

DirectBlocks::Part DirectBlocks::part(const std::vector<std::uint64_t>& counts, std::uint64_t total,
                                      std::uint32_t rank) const {
  if (counts.empty()) return {rank * (total / seat().ranks), total / seat().ranks};
  const auto end = counts.begin() + rank;
  return {std::accumulate(counts.begin(), end, std::uint64_t{0}), *end};
}

std::uint8_t* DirectBlocks::received(std::uint64_t element) const {
  return static_cast<std::uint8_t*>(call().recv) + element * element_bytes();
}

const std::uint8_t* DirectBlocks::sent(std::uint64_t element) const {
  return static_cast<const std::uint8_t*>(call().send) + element * element_bytes();
}

void DirectBlocks::take(std::uint32_t rank, std::uint64_t to_element, std::uint64_t elements) {
  blocks_.push_back({rank, nullptr, received(to_element), elements * element_bytes()});
}

// Of an all_gather; the way over the links has done it where it may copy it at any time.
void DirectBlocks::take_own() {
  const std::uint32_t rank = seat().rank;
  std::uint8_t* const to = received(rank * call().send_count);
  if (sent(0) != to) blocks_.push_back({rank, sent(0), to, call().send_count * element_bytes()});
}

DirectOp::Offer DirectBlocks::offer(std::uint32_t to) const {
  switch (call().kind) {
    case Collective::all_to_all:
      return {sent(part(call().send_counts, call().send_count, to).first)};
    case Collective::all_gather:
    case Collective::gather:
    case Collective::send:
      return {call().send};
    case Collective::broadcast:
      return {call().recv};
    case Collective::scatter:
      return {is_root() ? sent(to * call().recv_count) : nullptr};
    default:
      return {};
  }
}

DirectOp::Piece DirectBlocks::copy_piece() {
  if (complete()) return Piece::idle;
  const Block& block = blocks_[next_];
  const std::uint64_t bytes = std::min<std::uint64_t>(limits::direct_copy_bytes, block.bytes - copied_);
  if (block.own != nullptr) {
    std::memcpy(block.to + copied_, block.own + copied_, bytes);
  } else if (const Partner& from = partner(block.rank);
             !read(from, from.memory.send + copied_, block.to + copied_, bytes)) {
    return Piece::failed;
  }
  copied_ += bytes;
  if (copied_ == block.bytes) {
    ++next_;
    copied_ = 0;
  }
  return Piece::copied;
}

}  // namespace pccl
