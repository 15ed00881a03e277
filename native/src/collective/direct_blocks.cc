#include "collective/direct_blocks.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace pccl {

DirectBlocks::DirectBlocks(const Request& request, const Context& context, std::unique_ptr<Op> links)
    : DirectOp(request, context, Algorithm::direct, context.hosts.mates(context.seat.rank), std::move(links)) {
  const auto [rank, ranks] = std::pair(seat().rank, seat().ranks);
  switch (call().kind) {
    case Collective::all_to_all:
      // Each begins with another one, so that no memory is read by all at once.
      for (std::uint32_t distance = 0; distance < ranks; ++distance) {
        const std::uint32_t from = (rank + distance) % ranks;
        const Part received = part(call().recv_counts, call().recv_count, from);
        take(from, received.first, received.elements, part(call().send_counts, call().send_count, rank).first);
      }
      break;
    case Collective::all_gather:
      for (std::uint32_t distance = 0; distance < ranks; ++distance) {
        const std::uint32_t from = (rank + distance) % ranks;
        take(from, from * call().send_count, call().send_count, 0);
      }
      break;
    case Collective::gather:
      for (std::uint32_t from = 0; is_root() && from < ranks; ++from) {
        take(from, from * call().send_count, call().send_count, 0);
      }
      break;
    case Collective::broadcast:
      if (!is_root()) take(seat().peer_rank, 0, call().recv_count, 0);
      break;
    case Collective::scatter:
      take(seat().peer_rank, 0, call().recv_count, rank * call().recv_count);
      break;
    case Collective::recv:
      take(seat().peer_rank, 0, call().recv_count, 0);
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

const std::uint8_t* DirectBlocks::sent(std::uint64_t element) const {
  return static_cast<const std::uint8_t*>(call().send) + element * element_bytes();
}

// `own_element`: where it begins in `send`, if it is this rank's own.
void DirectBlocks::take(std::uint32_t rank, std::uint64_t to_element, std::uint64_t elements,
                        std::uint64_t own_element) {
  if (elements == 0) return;
  std::uint8_t* const to = static_cast<std::uint8_t*>(call().recv) + to_element * element_bytes();
  const std::uint8_t* const own = rank == seat().rank ? sent(own_element) : nullptr;
  if (own != to) blocks_.push_back({rank, own, to, elements * element_bytes()});
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
