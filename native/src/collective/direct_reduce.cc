#include "collective/direct_reduce.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/limits.h"
#include "reduce/kernels.h"

namespace pccl {
namespace {

constexpr std::uint64_t cache_line_bytes = 64;
// Words of progress cost a wake-up of whoever waits for them.
constexpr std::uint64_t progress_bytes = limits::direct_copy_bytes;

}  // namespace

DirectReduce::DirectReduce(const Request& request, const Context& context, Algorithm algorithm,
                           std::unique_ptr<Op> links)
    : DirectOp(request, context, algorithm, context.hosts.mates(context.seat.rank), std::move(links)),
      mates_(context.hosts.mates(context.seat.rank)) {
  const std::uint64_t count = call().send_count;
  const std::uint64_t line = cache_line_bytes / element_bytes();
  const std::uint64_t equal = (count + mates_.size() - 1) / mates_.size();
  const std::uint64_t length = scatters() ? call().recv_count : (equal + line - 1) / line * line;
  for (const std::uint32_t rank : mates_) {
    const std::uint64_t begin = std::min(slices_.size() * length, count);
    slices_.push_back({.rank = rank, .begin = begin, .length = std::min(length, count - begin)});
  }
}

DirectReduce::~DirectReduce() {
  pool_.give_back(std::move(piece_));
  pool_.give_back(std::move(backup_));
}

bool DirectReduce::begin() {
  piece_ = pool_.take(limits::direct_piece_bytes);
  if (piece_.memory == nullptr) return false;
  if (!in_place()) return true;
  backup_ = pool_.take(call().send_count * element_bytes());
  return backup_.memory != nullptr;
}

bool DirectReduce::on_word(std::uint32_t from, const StepBody& body) {
  const auto slice =
      std::find_if(slices_.begin(), slices_.end(), [from](const Slice& one) { return one.rank == from; });
  if (body.step != progress_step || slice == slices_.end()) return false;
  if (body.value < slice->ready || body.value > slice->length) return false;
  slice->ready = body.value;
  return true;
}

DirectReduce::Slice& DirectReduce::own() {
  return *std::find_if(slices_.begin(), slices_.end(), [this](const Slice& slice) { return owns(slice); });
}

const std::uint8_t* DirectReduce::input(std::uint64_t element) const {
  return static_cast<const std::uint8_t*>(call().send) + element * element_bytes();
}

std::uint8_t* DirectReduce::output(std::uint64_t element) const {
  const std::uint64_t first = scatters() ? seat().rank * call().recv_count : 0;
  return static_cast<std::uint8_t*>(call().recv) + (element - first) * element_bytes();
}

void DirectReduce::save(Slice& slice, std::uint64_t elements) {
  const std::uint64_t end = slice.taken + elements;
  if (!in_place() || end <= slice.saved) return;
  const std::uint64_t from = slice.begin + slice.saved;
  std::memcpy(backup_.memory.get() + from * element_bytes(), input(from), (end - slice.saved) * element_bytes());
  slice.saved = end;
}

DirectOp::Piece DirectReduce::copy_piece() {
  // The others wait for the own slice, so it comes first.
  const Slice& slice = own();
  if (slice.taken < slice.length) return combine_piece();
  return takes_slices() ? take_piece() : Piece::idle;
}

DirectOp::Piece DirectReduce::combine_piece() {
  Slice& slice = own();
  const std::uint64_t begin = slice.begin + slice.taken;
  const std::uint64_t count =
      std::min<std::uint64_t>(limits::direct_piece_bytes / element_bytes(), slice.length - slice.taken);
  std::uint8_t* const into = output(begin);
  const void* local = input(begin);
  save(slice, count);
  const auto at = std::find(mates_.begin(), mates_.end(), seat().rank) - mates_.begin();
  for (std::size_t distance = 1; distance < mates_.size(); ++distance) {
    const Partner& other = partner(mates_[(at + distance) % mates_.size()]);
    const std::uint64_t address = other.memory.send + begin * element_bytes();
    if (!read(other, address, piece_.memory.get(), count * element_bytes())) return Piece::failed;
    if (is_everybody_here() && distance + 1 == mates_.size()) {
      combine_last(call().dtype, call().op, into, local, piece_.memory.get(), count, seat().ranks);
    } else {
      combine(call().dtype, call().op, into, local, piece_.memory.get(), count);
    }
    local = into;
  }
  slice.taken += count;
  const bool is_over = slice.taken == slice.length;
  if (is_over || (slice.taken - told_) * element_bytes() >= progress_bytes) tell_progress();
  return Piece::copied;
}

void DirectReduce::tell_progress() {
  told_ = own().taken;
  if (scatters()) return;
  for (const std::uint32_t rank : mates_) {
    const bool awaits = is_everybody_here() || rank == mates_.front();
    if (awaits && rank != seat().rank) wire().send_step(rank, {progress_step, told_});
  }
}

std::uint64_t DirectReduce::take_from(const Partner& owner, std::uint64_t begin, std::uint64_t elements) {
  const std::uint64_t count = std::min<std::uint64_t>(limits::direct_copy_bytes / element_bytes(), elements);
  const std::uint64_t address = owner.memory.recv + begin * element_bytes();
  return read(owner, address, output(begin), count * element_bytes()) ? count : 0;
}

DirectOp::Piece DirectReduce::take_piece() {
  for (Slice& slice : slices_) {
    if (owns(slice) || slice.taken == slice.ready) continue;
    const std::uint64_t left = slice.ready - slice.taken;
    save(slice, std::min<std::uint64_t>(limits::direct_copy_bytes / element_bytes(), left));
    const std::uint64_t taken = take_from(partner(slice.rank), slice.begin + slice.taken, left);
    if (taken == 0) return Piece::failed;
    slice.taken += taken;
    return Piece::copied;
  }
  return Piece::idle;
}

bool DirectReduce::slices_are_complete() const {
  return std::all_of(slices_.begin(), slices_.end(), [this](const Slice& slice) {
    return slice.taken == slice.length || !(owns(slice) || takes_slices());
  });
}

void DirectReduce::undo() {
  for (const Slice& slice : slices_) {
    if (slice.saved == 0) continue;
    const std::uint8_t* const saved = backup_.memory.get() + slice.begin * element_bytes();
    std::memcpy(output(slice.begin), saved, slice.saved * element_bytes());
  }
}

}  // namespace pccl
