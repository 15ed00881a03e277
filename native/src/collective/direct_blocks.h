// A collective among peers that read each other's memory and in which nothing is combined: each takes the blocks that
// are meant for it straight from where they are to where they go. Needs no memory of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "collective/direct_op.h"

namespace pccl {

class DirectBlocks final : public DirectOp {
 public:
  DirectBlocks(const Request& request, const Context& context, std::unique_ptr<Op> links);

 private:
  Offer offer(std::uint32_t to) const override;
  Piece copy_piece() override;
  bool complete() const override { return next_ == blocks_.size(); }

  // What comes from a rank to where. Each rank begins with the one behind it, so that no memory is read by all at once.
  struct Block {
    std::uint32_t rank = 0;
    const std::uint8_t* own = nullptr;  // where it is, if it is this rank's own
    std::uint8_t* to = nullptr;
    std::uint64_t bytes = 0;
  };
  // Of an all_to_all: elements for, or from, a rank, and those before them.
  struct Part {
    std::uint64_t first = 0;
    std::uint64_t elements = 0;
  };
  bool is_root() const { return seat().rank == seat().peer_rank; }
  Part part(const std::vector<std::uint64_t>& counts, std::uint64_t total, std::uint32_t rank) const;
  const std::uint8_t* sent(std::uint64_t element) const;
  std::uint8_t* received(std::uint64_t element) const;
  void take(std::uint32_t rank, std::uint64_t to_element, std::uint64_t elements);
  void take_own();

  std::vector<Block> blocks_;
  std::size_t next_ = 0;      // the block that is being copied
  std::uint64_t copied_ = 0;  // of it
};

}  // namespace pccl
