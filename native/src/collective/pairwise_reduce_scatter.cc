#include "collective/pairwise_reduce_scatter.h"

#include "reduce/kernels.h"

namespace pccl {

PairwiseReduceScatter::PairwiseReduceScatter(const Request& request, const Context& context)
    : Op(request, context, Algorithm::pairwise),
      bytes_(call().recv_count * element_bytes()),
      combined_(block_chunks(bytes_)),
      chunks_left_(combined_.size()),
      has_called_(seat().ranks),
      asked_(seat().ranks, std::vector<bool>(combined_.size())) {
  set_partners(seat().others(), true);
  for (std::uint32_t rank = 0; rank < seat().ranks; ++rank) {
    outgoing_.emplace_back(static_cast<const std::uint8_t*>(call().send) + rank * bytes_, bytes_);
  }
  outgoing_[seat().next()].add_all();
}

Op::Answer PairwiseReduceScatter::on_ready(std::uint32_t rank, const Payload& payload, Difference&) {
  if (payload) return Answer::wrong;
  has_called_[rank] = true;
  for (std::uint64_t chunk = 0; chunk < combined_.size(); ++chunk) {
    if (combined_[chunk] + 1 == behind(rank)) ask(behind(rank), chunk);
  }
  return Answer::agreed;
}

void PairwiseReduceScatter::ask(std::uint32_t distance, std::uint64_t chunk) {
  if (distance == 1 || distance == seat().ranks) return;
  const std::uint32_t rank = (seat().rank + seat().ranks - distance) % seat().ranks;
  if (has_called_[rank]) wire().send_step(rank, {0, chunk});
}

bool PairwiseReduceScatter::on_step(std::uint32_t from, const StepBody& body) {
  if (body.step != 0 || body.value >= combined_.size() || from == seat().next() || asked_[from][body.value]) {
    return false;
  }
  asked_[from][body.value] = true;
  outgoing_[from].add(body.value);
  wire().wake(from);
  return true;
}

Op::Turn PairwiseReduceScatter::turn(std::uint32_t from, const DataBody& body) const {
  if (body.step != 0 || body.chunk >= combined_.size() || body.bytes != block_chunk_bytes(bytes_, body.chunk)) {
    return Turn::wrong;
  }
  const std::uint32_t before = behind(from) - 1;
  if (combined_[body.chunk] == before) return Turn::wanted;
  return combined_[body.chunk] > before ? Turn::received : Turn::wrong;
}

void PairwiseReduceScatter::receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) {
  // Two lanes may have brought it at once.
  if (combined_[body.chunk] >= behind(from)) return;
  count_received(header_bytes + body.bytes);
  const std::uint64_t offset = body.chunk * limits::chunk_bytes;
  std::uint8_t* const into = static_cast<std::uint8_t*>(call().recv) + offset;
  const std::uint8_t* const local = combined_[body.chunk] == 0 ? outgoing_[seat().rank].memory() + offset : into;
  const std::size_t count = body.bytes / element_bytes();
  if (++combined_[body.chunk] + 1 == seat().ranks) {
    combine_last(call().dtype, call().op, into, local, payload, count, seat().ranks);
    --chunks_left_;
  } else {
    combine(call().dtype, call().op, into, local, payload, count);
    ask(combined_[body.chunk] + 1, body.chunk);
  }
}

std::optional<Op::Outgoing> PairwiseReduceScatter::next_send(std::uint32_t to) {
  const auto next = outgoing_[to].next(0);
  if (next) count_sent(header_bytes + next->body.bytes);
  return next;
}

void PairwiseReduceScatter::send_again(std::uint32_t to, const DataBody& body) {
  outgoing_[to].again(body.chunk);
  wire().wake(to);
}

}  // namespace pccl
