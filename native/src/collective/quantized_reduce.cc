#include "collective/quantized_reduce.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "base/limits.h"
#include "quantize/layout.h"
#include "quantize/quantize.h"
#include "reduce/kernels.h"

namespace pccl {
namespace {

// Whole blocks of any size, and in any format no more bytes than a chunk may have.
constexpr std::uint64_t chunk_elements = limits::chunk_bytes / sizeof(float);
static_assert(chunk_elements % quantization_block_max == 0);
// What is decoded, added up and quantized at once stays in the first cache.
constexpr std::uint64_t piece_elements = quantization_block_max;

// Stochastic rounding is independent in the sum and in each rank's part.
constexpr QuantizationStream sum_stream = 0;
constexpr QuantizationStream part_stream(std::uint32_t rank) { return 1 + rank; }

std::uint64_t rounded_up(std::uint64_t count, std::uint64_t to) { return (count + to - 1) / to * to; }

}  // namespace

QuantizedReduce::QuantizedReduce(const Request& request, const Context& context)
    : Op(request, context, context.seat.ranks == 1 ? Algorithm::alone : Algorithm::quantized),
      count_(call().send_count),
      slice_elements_(gathers() ? rounded_up((count_ + seat().ranks - 1) / seat().ranks, quantization().block)
                                : call().recv_count),
      exchanges_(seat().ranks),
      parts_left_(chunks(seat().rank), seat().ranks) {
  set_partners(seat().others(), true);
  results_left_ = parts_left_.size();
  for (std::uint64_t index = 0; index < parts_left_.size(); ++index) to_quantize_.push_back({seat().rank, index});
  for (const std::uint32_t rank : partners()) {
    Exchange& exchange = exchanges_[rank];
    exchange.part_is_sent.resize(chunks(rank));
    exchange.part_has_come.resize(parts_left_.size());
    if (!gathers()) continue;
    exchange.sum_has_come.resize(chunks(rank));
    results_left_ += chunks(rank);
  }
  // All owners have their first chunk soon. No slice is longer than the first one.
  for (std::uint64_t index = 0; index < chunks(0); ++index) {
    for (const std::uint32_t rank : partners()) {
      if (index < chunks(rank)) to_quantize_.push_back({rank, index});
    }
  }
}

QuantizedReduce::~QuantizedReduce() {
  pool_.give_back(std::move(memory_));
  pool_.give_back(std::move(backup_));
}

QuantizedReduce::Range QuantizedReduce::slice(std::uint32_t rank) const {
  const std::uint64_t begin = std::min(rank * slice_elements_, count_);
  return {begin, std::min(slice_elements_, count_ - begin)};
}

std::uint64_t QuantizedReduce::chunks(std::uint32_t rank) const {
  return (slice(rank).count + chunk_elements - 1) / chunk_elements;
}

QuantizedReduce::Range QuantizedReduce::chunk(std::uint32_t rank, std::uint64_t index) const {
  const Range whole = slice(rank);
  const std::uint64_t begin = index * chunk_elements;
  return {whole.begin + begin, std::min(chunk_elements, whole.count - begin)};
}

std::uint64_t QuantizedReduce::chunk_offset(std::uint64_t index) const {
  return index * quantized_bytes(quantization(), chunk_elements);
}

std::uint32_t QuantizedReduce::bytes(std::uint32_t rank, std::uint64_t index) const {
  return static_cast<std::uint32_t>(quantized_bytes(quantization(), chunk(rank, index).count));
}

float* QuantizedReduce::output(const Range& range) const {
  return static_cast<float*>(call().recv) + range.begin - (gathers() ? 0 : slice(seat().rank).begin);
}

bool QuantizedReduce::prepare() {
  wire().schedule();
  if (partners().empty()) return true;
  const std::uint64_t own = quantized_bytes(quantization(), slice(seat().rank).count);
  std::uint64_t total = own;
  for (const std::uint32_t rank : partners()) total += own + quantized_bytes(quantization(), slice(rank).count);
  memory_ = pool_.take(total);
  if (memory_.memory == nullptr) return false;
  sum_ = memory_.memory.get();
  std::uint8_t* at = sum_ + own;
  for (const std::uint32_t rank : partners()) {
    exchanges_[rank].sent_part = at;
    at += quantized_bytes(quantization(), slice(rank).count);
    exchanges_[rank].received_part = at;
    at += own;
  }
  if (!keeps_backup()) return true;
  backup_ = pool_.take(count_ * sizeof(float));
  return backup_.memory != nullptr;
}

std::optional<Error> QuantizedReduce::work() {
  if (fault_) {
    const std::string message = "rank " + std::to_string(*fault_) + " sent a block that no correct peer sends";
    return Error{ErrorCode::internal, message, {}};
  }
  if (to_quantize_.empty()) return std::nullopt;
  const Piece piece = to_quantize_.front();
  to_quantize_.pop_front();
  if (!quantize_part(piece.rank, piece.chunk)) {
    const char* const message = "this peer's input has NaN, an infinity, or a number too large for its format";
    return Error{ErrorCode::non_finite_input, message, {}};
  }
  if (!to_quantize_.empty() || fault_) wire().schedule();
  return std::nullopt;
}

// False: it may not be sent.
bool QuantizedReduce::quantize_part(std::uint32_t rank, std::uint64_t index) {
  const Range range = chunk(rank, index);
  const std::span values(input(range), range.count);
  if (!quantization().pass_non_finite && !stays_finite(quantization(), values)) return false;
  if (rank == seat().rank) {
    part_is_there(index);
    return true;
  }
  Exchange& exchange = exchanges_[rank];
  quantize(quantization(), part_stream(seat().rank), range.begin, values, exchange.sent_part + chunk_offset(index));
  exchange.parts_to_send.push_back(index);
  wire().wake(rank);
  return true;
}

Op::Turn QuantizedReduce::turn(std::uint32_t from, const DataBody& body) const {
  const Exchange& exchange = exchanges_[from];
  const bool is_sum = body.step == sum_step && gathers();
  if (from == seat().rank || (body.step != part_step && !is_sum)) return Turn::wrong;
  const std::uint32_t owner = is_sum ? from : seat().rank;
  if (body.chunk >= chunks(owner) || body.bytes != bytes(owner, body.chunk)) return Turn::wrong;
  // A sum has this rank's part in it, so it can't come before that has gone.
  if (is_sum && !exchange.part_is_sent[body.chunk]) return Turn::wrong;
  return (is_sum ? exchange.sum_has_come : exchange.part_has_come)[body.chunk] ? Turn::received : Turn::wanted;
}

std::uint8_t* QuantizedReduce::receive_begin(std::uint32_t from, const DataBody& body) {
  return body.step == sum_step ? nullptr : exchanges_[from].received_part + chunk_offset(body.chunk);
}

void QuantizedReduce::receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) {
  Exchange& exchange = exchanges_[from];
  const bool is_sum = body.step == sum_step;
  // Two lanes may have brought it at once.
  auto has_come = (is_sum ? exchange.sum_has_come : exchange.part_has_come)[body.chunk];
  if (has_come) return;
  has_come = true;
  count_received(header_bytes + body.bytes);
  if (!is_sum) return part_is_there(body.chunk);
  const Range range = chunk(from, body.chunk);
  save(range);
  if (!dequantize(quantization(), {payload, body.bytes}, {output(range), range.count})) return fail(from);
  --results_left_;
}

void QuantizedReduce::part_is_there(std::uint64_t index) {
  if (--parts_left_[index] > 0) return;
  const Range range = chunk(seat().rank, index);
  save(range);
  std::array<float, piece_elements> sum;
  for (std::uint64_t begin = 0; begin < range.count; begin += piece_elements) {
    const Range piece{range.begin + begin, std::min(piece_elements, range.count - begin)};
    if (!combine_piece(piece, {sum.data(), piece.count})) return;
  }
  --results_left_;
  if (!gathers()) return;
  for (const std::uint32_t rank : partners()) {
    exchanges_[rank].sums_to_send.push_back(index);
    wire().wake(rank);
  }
}

// Whole blocks of this rank's slice. False: somebody's part can't be decoded.
bool QuantizedReduce::combine_piece(const Range& piece, std::span<float> sum) {
  float* const into = output(piece);
  const float* combined = input(piece);
  std::array<float, piece_elements> part;
  const std::uint64_t offset = quantized_bytes(quantization(), piece.begin - slice(seat().rank).begin);
  const std::uint64_t length = quantized_bytes(quantization(), piece.count);
  for (const std::uint32_t rank : partners()) {
    if (!dequantize(quantization(), {exchanges_[rank].received_part + offset, length}, {part.data(), piece.count})) {
      fail(rank);
      return false;
    }
    if (rank == partners().back()) {
      combine_last(DType::f32, call().op, sum.data(), combined, part.data(), piece.count, seat().ranks);
    } else {
      combine(DType::f32, call().op, sum.data(), combined, part.data(), piece.count);
    }
    combined = sum.data();
  }
  if (gathers() && !partners().empty()) {
    quantize(quantization(), sum_stream, piece.begin, sum, sum_ + offset);
    return dequantize(quantization(), {sum_ + offset, length}, {into, piece.count});
  }
  if (combined != into) std::memcpy(into, combined, piece.count * sizeof(float));
  return true;
}

// Parts first: the sooner all owners have them the sooner there are sums, which then fill the links.
std::optional<Op::Outgoing> QuantizedReduce::next_send(std::uint32_t to) {
  Exchange& exchange = exchanges_[to];
  const bool is_part = !exchange.parts_to_send.empty();
  std::deque<std::uint64_t>& queue = is_part ? exchange.parts_to_send : exchange.sums_to_send;
  if (queue.empty()) return std::nullopt;
  const std::uint64_t index = queue.front();
  queue.pop_front();
  if (is_part) exchange.part_is_sent[index] = true;
  const std::uint32_t length = bytes(is_part ? to : seat().rank, index);
  count_sent(header_bytes + length);
  const std::uint8_t* const from = is_part ? exchange.sent_part : sum_;
  return Outgoing{{is_part ? part_step : sum_step, index, length}, from + chunk_offset(index)};
}

void QuantizedReduce::send_again(std::uint32_t to, const DataBody& body) {
  Exchange& exchange = exchanges_[to];
  if (body.step == part_step) exchange.part_is_sent[body.chunk] = false;
  (body.step == part_step ? exchange.parts_to_send : exchange.sums_to_send).push_front(body.chunk);
  wire().wake(to);
}

void QuantizedReduce::save(const Range& range) {
  if (!keeps_backup()) return;
  std::memcpy(backup_.memory.get() + range.begin * sizeof(float), output(range), range.count * sizeof(float));
  saved_.push_back(range);
}

void QuantizedReduce::restore() {
  for (const Range& range : saved_) {
    std::memcpy(output(range), backup_.memory.get() + range.begin * sizeof(float), range.count * sizeof(float));
  }
  saved_.clear();
}

void QuantizedReduce::fail(std::uint32_t rank) {
  fault_ = rank;
  wire().schedule();
}

}  // namespace pccl
