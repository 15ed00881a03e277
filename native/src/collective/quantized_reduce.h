// An all_reduce or a reduce_scatter of f32 whose bytes are quantized on the wire. Each rank owns a slice. Everybody
// quantizes its part of the others' slices, each once, and sends it straight to the owner; that one adds them up in
// f32, its own part as it is, in the order of ranks that begins with its own. Of an all_reduce it quantizes the sum,
// once, sends that to everybody, and takes the decoded values itself, so that all have the same bits. The bytes are
// those of a ring; the errors of N-1 parts and one sum are less than those of the N partial sums that a ring rounds.
// docs/decisions/024 has the measurement.
//
// work() quantizes a chunk at a time, and looks for NaN and infinities on the way.
//
// Memory: the quantized parts, sent and received, and the quantized sum; in place also what an all_reduce overwrites.
// Only for members that are all linked.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/op.h"

namespace pccl {

class QuantizedReduce final : public Op {
 public:
  QuantizedReduce(const Request& request, const Context& context);
  ~QuantizedReduce() override;

  bool prepare() override;
  std::optional<Error> work() override;
  Turn turn(std::uint32_t from, const DataBody& body) const override;
  std::uint8_t* receive_begin(std::uint32_t from, const DataBody& body) override;
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;
  bool done() const override { return to_quantize_.empty() && results_left_ == 0 && !fault_; }
  void restore() override;

 private:
  // In elements of the array.
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t count = 0;
  };
  // Quantized parts go in step 0, quantized sums in step 1.
  enum Step : std::uint32_t { part_step = 0, sum_step = 1 };
  // What is exchanged with another rank.
  struct Exchange {
    std::uint8_t* sent_part = nullptr;      // of its slice, this rank's
    std::uint8_t* received_part = nullptr;  // of this rank's slice, its own
    std::vector<bool> part_is_sent;
    std::vector<bool> part_has_come;
    std::vector<bool> sum_has_come;
    std::deque<std::uint64_t> parts_to_send;
    std::deque<std::uint64_t> sums_to_send;
  };

  const Quantization& quantization() const { return call().quantization; }
  bool gathers() const { return call().kind == Collective::all_reduce; }
  bool keeps_backup() const { return gathers() && seat().ranks > 1 && call().send == call().recv; }
  Range slice(std::uint32_t rank) const;
  std::uint64_t chunks(std::uint32_t rank) const;
  Range chunk(std::uint32_t rank, std::uint64_t index) const;
  std::uint64_t chunk_offset(std::uint64_t index) const;
  std::uint32_t bytes(std::uint32_t rank, std::uint64_t index) const;
  const float* input(const Range& range) const { return static_cast<const float*>(call().send) + range.begin; }
  float* output(const Range& range) const;

  bool quantize_part(std::uint32_t rank, std::uint64_t index);
  void part_is_there(std::uint64_t index);
  bool combine_piece(const Range& piece, std::span<float> sum);
  void save(const Range& range);
  void fail(std::uint32_t rank);

  const std::uint64_t count_;  // elements of the array that is reduced
  const std::uint64_t slice_elements_;
  std::vector<Exchange> exchanges_;  // by rank; this rank's own has nothing in it
  // Chunks that still have to be looked at, its own slice's first.
  struct Piece {
    std::uint32_t rank = 0;
    std::uint64_t chunk = 0;
  };
  std::deque<Piece> to_quantize_;
  // Of this rank's slice, by chunk: the parts that aren't there yet, its own among them until it has been looked at.
  std::vector<std::uint32_t> parts_left_;
  std::uint64_t results_left_ = 0;  // chunks of the output
  BufferPool::Buffer memory_;
  std::uint8_t* sum_ = nullptr;  // this rank's, quantized
  BufferPool::Buffer backup_;
  std::vector<Range> saved_;
  std::optional<std::uint32_t> fault_;  // who has sent what no correct peer sends
};

}  // namespace pccl
