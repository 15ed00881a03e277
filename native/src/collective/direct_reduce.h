// An all_reduce or reduce_scatter among peers that read each other's memory. The array is cut into a slice for each
// member of the host. A member reads the others' contributions to its own slice, combines them, in rank order from its
// own on, and tells how far it is; an all_reduce then takes the other slices from their owners as they grow. So a rank
// reads 2 (N-1)/N arrays from other processes, as little as any algorithm moves, and each element is combined by one
// rank for all.
//
// In place, an all_reduce overwrites its input while it may still fail: a piece is copied to a backup, as long as the
// input, before it is overwritten. Nobody reads a slice of this rank's input any more when it is overwritten: its only
// reader is its owner, who has told that it is through with it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/direct_op.h"

namespace pccl {

class DirectReduce : public DirectOp {
 public:
  DirectReduce(const Request& request, const Context& context, std::unique_ptr<Op> links)
      : DirectReduce(request, context, Algorithm::direct, std::move(links)) {}
  ~DirectReduce() override;

 protected:
  DirectReduce(const Request& request, const Context& context, Algorithm algorithm, std::unique_ptr<Op> links);

  bool begin() override;
  bool on_word(std::uint32_t from, const StepBody& body) override;
  Piece copy_piece() override;
  bool complete() const override { return slices_are_complete(); }
  void undo() override;

  // Of the members of this host in rank order: a slice, in elements.
  struct Slice {
    std::uint32_t rank = 0;  // its owner
    std::uint64_t begin = 0;
    std::uint64_t length = 0;
    std::uint64_t ready = 0;  // how far its owner has come
    std::uint64_t taken = 0;  // how far it is in the output here
    std::uint64_t saved = 0;  // how far the input is in the backup
  };
  // Steps of the words that ranks send.
  static constexpr std::uint32_t progress_step = first_direct_step;

  const std::vector<std::uint32_t>& mates() const { return mates_; }
  bool is_leader() const { return mates_.front() == seat().rank; }
  bool in_place() const { return call().send == call().recv; }
  std::vector<Slice>& slices() { return slices_; }
  bool owns(const Slice& slice) const { return slice.rank == seat().rank; }
  // This rank has all of its slices: its own, and the others' if it takes them.
  bool slices_are_complete() const;
  // Copies what `owner` has of these elements, up to a piece's worth, into the output. Returns how many; none when
  // that can't be read.
  std::uint64_t take_from(const Partner& owner, std::uint64_t begin, std::uint64_t elements);
  // Before that many elements behind the taken ones are overwritten.
  void save(Slice& slice, std::uint64_t elements);

 private:
  Offer offer(std::uint32_t) const override { return {call().send, call().recv}; }
  bool scatters() const { return call().kind == Collective::reduce_scatter; }
  bool is_everybody_here() const { return mates_.size() == seat().ranks; }
  // All members need the whole; else the leader alone.
  bool takes_slices() const { return !scatters() && (is_everybody_here() || is_leader()); }
  const std::uint8_t* input(std::uint64_t element) const;
  std::uint8_t* output(std::uint64_t element) const;
  Slice& own();
  Piece combine_piece();
  Piece take_piece();
  void tell_progress();

  const std::vector<std::uint32_t> mates_;
  std::vector<Slice> slices_;
  std::uint64_t told_ = 0;  // of the own slice
  BufferPool::Buffer piece_;
  BufferPool::Buffer backup_;
};

}  // namespace pccl
