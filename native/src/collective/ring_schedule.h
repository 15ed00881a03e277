// Which bytes an op of N ranks sends and receives, and in which order: the ring algorithm (reduce-scatter, then
// all-gather; Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009), with
// each slice cut into chunks.
//
// The array is cut into N slices. In step g = 0 … 2N-3 rank r sends slice r-g and receives slice r-1-g (mod N).
// Steps before N-1 combine what comes with the local contribution, later ones store it. What is received in step g
// is what is sent in step g+1, chunk by chunk. The elements that are sent in step g come back, with every
// contribution in them, in step g+N-1.
//
// A reduce_scatter is the first half and an all_gather the second one, which begin and end with rank r holding slice
// r+1. So that this is slice r, ranks take the places of those before them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/limits.h"

namespace pccl {

class RingSchedule {
 public:
  struct Chunk {
    std::uint32_t step = 0;
    std::uint64_t index = 0;          // in the step's slice
    std::uint64_t begin_element = 0;  // in the array
    std::uint32_t elements = 0;
  };

  static RingSchedule all_reduce(std::uint32_t rank, std::uint32_t ranks, std::uint64_t count,
                                 std::uint32_t element_bytes) {
    // Slices begin at cache lines of the array.
    const std::uint64_t line = 64 / element_bytes;
    const std::uint64_t slice = ((count + ranks - 1) / ranks + line - 1) / line * line;
    return {rank, ranks, count, slice, {0, 2 * (ranks - 1)}, element_bytes};
  }
  // `block`: the elements of each rank.
  static RingSchedule reduce_scatter(std::uint32_t rank, std::uint32_t ranks, std::uint64_t block,
                                     std::uint32_t element_bytes) {
    return {(rank + ranks - 1) % ranks, ranks, block * ranks, block, {0, ranks - 1}, element_bytes};
  }
  static RingSchedule all_gather(std::uint32_t rank, std::uint32_t ranks, std::uint64_t block,
                                 std::uint32_t element_bytes) {
    return {(rank + ranks - 1) % ranks, ranks, block * ranks, block, {ranks - 1, 2 * (ranks - 1)}, element_bytes};
  }

  std::uint32_t first_step() const { return steps_.first; }
  // Behind the last one.
  std::uint32_t steps() const { return steps_.end; }
  // The step whose received slice has every contribution then.
  std::uint32_t last_combining_step() const { return ranks_ - 2; }
  bool combines(std::uint32_t step) const { return step + 1 < ranks_; }

  std::uint32_t sent_slice(std::uint32_t step) const { return (rank_ + 2 * ranks_ - step) % ranks_; }
  std::uint32_t received_slice(std::uint32_t step) const { return (rank_ + 2 * ranks_ - 1 - step) % ranks_; }
  // 0 for slices that a short array leaves empty.
  std::uint64_t chunks(std::uint32_t slice) const {
    return (slice_end(slice) - slice_begin(slice) + chunk_elements_ - 1) / chunk_elements_;
  }

  // The most that a slice has.
  std::uint64_t chunks_max() const { return chunks(0); }

  // The chunk of that index in the slice that the step sends, or receives.
  Chunk sent_chunk(std::uint32_t step, std::uint64_t index) const { return chunk(step, sent_slice(step), index); }
  Chunk received_chunk(std::uint32_t step, std::uint64_t index) const {
    return chunk(step, received_slice(step), index);
  }

 private:
  struct Steps {
    std::uint32_t first;
    std::uint32_t end;
  };
  RingSchedule(std::uint32_t rank, std::uint32_t ranks, std::uint64_t count, std::uint64_t slice, Steps steps,
               std::uint32_t element_bytes)
      : rank_(rank),
        ranks_(ranks),
        count_(count),
        chunk_elements_(limits::chunk_bytes / element_bytes),
        slice_elements_(slice),
        steps_(steps) {}

  std::uint64_t slice_begin(std::uint32_t slice) const { return std::min(slice * slice_elements_, count_); }
  std::uint64_t slice_end(std::uint32_t slice) const { return std::min((slice + 1) * slice_elements_, count_); }
  Chunk chunk(std::uint32_t step, std::uint32_t slice, std::uint64_t index) const {
    const std::uint64_t begin = slice_begin(slice) + index * chunk_elements_;
    const std::uint64_t elements = std::min<std::uint64_t>(chunk_elements_, slice_end(slice) - begin);
    return {step, index, begin, static_cast<std::uint32_t>(elements)};
  }

  std::uint32_t rank_;
  std::uint32_t ranks_;
  std::uint64_t count_;
  std::uint64_t chunk_elements_;
  std::uint64_t slice_elements_;
  Steps steps_;
};

}  // namespace pccl
