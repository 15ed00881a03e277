#include "engine/call_checks.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/collectives.h"
#include "base/dtype.h"
#include "base/limits.h"
#include "base/quantization.h"
#include "transport/ring_links.h"

namespace pccl {
namespace {

[[noreturn]] void refuse(const CollectiveCall& call, const std::string& what) {
  throw EngineError({ErrorCode::invalid_argument, std::string(traits(call.kind).name) + ": " + what, {}});
}

bool is_v(const CollectiveCall& call) { return !call.send_counts.empty() || !call.recv_counts.empty(); }

void check_buffer(const CollectiveCall& call, const char* name, const void* at, std::uint64_t count, bool may_be_empty) {
  const std::size_t element = element_bytes(call.dtype);
  const std::string buffer = name;
  if (count == 0 && may_be_empty) return;
  if (count == 0) refuse(call, buffer + " has no elements");
  if (at == nullptr) refuse(call, "no " + buffer + " buffer");
  if (count > PTRDIFF_MAX / element) refuse(call, buffer + "'s length is out of range");
  if (reinterpret_cast<std::uintptr_t>(at) % element != 0) refuse(call, buffer + " isn't aligned to its elements");
}

void check_counts(const CollectiveCall& call, const char* name, const std::vector<std::uint64_t>& counts,
                  std::uint64_t total) {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : counts) {
    if (count > total - sum) refuse(call, std::string(name) + " has fewer elements than its counts add up to");
    sum += count;
  }
  if (sum != total) refuse(call, std::string(name) + " has more elements than its counts add up to");
}

void check_times(const CollectiveCall& call, const char* longer, std::uint64_t total, const char* shorter,
                 std::uint64_t block, std::uint32_t ranks) {
  if (total % ranks == 0 && total / ranks == block) return;
  refuse(call, std::string(longer) + " must have " + std::to_string(ranks) + " times as many elements as " + shorter +
                   ", one block for each member, but they have " + std::to_string(total) + " and " +
                   std::to_string(block));
}

bool contains(const std::vector<PeerId>& ids, PeerId id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

void check_peer(const CollectiveCall& call, const InstalledView& view) {
  const CollectiveTraits& kind = traits(call.kind);
  if (!kind.has_root && !kind.of_two) return;
  const std::string peer = std::string(kind.has_root ? "root " : "peer ") + std::to_string(call.peer);
  if (!contains(view.members, call.peer)) refuse(call, peer + " is no member of this group");
  if (!kind.of_two) return;
  if (call.peer == view.self) refuse(call, peer + " is this peer itself");
  const auto linked = linked_ranks(view.rank, view.group_size);
  const auto rank = std::find(view.members.begin(), view.members.end(), call.peer) - view.members.begin();
  if (std::find(linked.begin(), linked.end(), static_cast<std::uint32_t>(rank)) != linked.end()) return;
  refuse(call, "in a group of more than " + std::to_string(limits::fully_linked_max) + " not all members are linked, " +
                   "and this peer has no link with " + peer);
}

void check_quantization(const CollectiveCall& call) {
  const Quantization& quantization = call.quantization;
  if (quantization.format == QuantizedFormat::none) return;
  if (const char* const fault = quantization_fault(quantization)) refuse(call, std::string("quantization: ") + fault);
  if (!traits(call.kind).reduces) refuse(call, "only all_reduce and reduce_scatter can be quantized");
  if (call.dtype != DType::f32) refuse(call, std::string("only f32 can be quantized, not ") + dtype_name(call.dtype));
  if (call.op == ReduceOp::prod) refuse(call, "products can't be quantized: their errors multiply too");
}

void check_group_size(const CollectiveCall& call, const InstalledView& view) {
  const bool quantized = call.quantization.format != QuantizedFormat::none;
  const bool in_blocks = quantized || call.kind == Collective::all_to_all || call.kind == Collective::gather ||
                         call.kind == Collective::scatter;
  if (!in_blocks || view.group_size <= limits::fully_linked_max) return;
  refuse(call, "the group has " + std::to_string(view.group_size) + " members, and only those of up to " +
                   std::to_string(limits::fully_linked_max) + " link everybody with everybody");
}

// Where `send` may lie in `recv`; null: nowhere.
const void* place_in_recv(const CollectiveCall& call, const InstalledView& view) {
  if (call.kind == Collective::all_reduce) return call.recv;
  if (call.kind != Collective::all_gather) return nullptr;
  return static_cast<const std::uint8_t*>(call.recv) + view.rank * call.send_count * element_bytes(call.dtype);
}

void check_overlap(const CollectiveCall& call, const InstalledView& view) {
  if (call.send_count == 0 || call.recv_count == 0 || call.send == place_in_recv(call, view)) return;
  const std::size_t element = element_bytes(call.dtype);
  const auto send = Leases::range(call.send, call.send_count * element, Leases::Use::shared);
  const auto recv = Leases::range(call.recv, call.recv_count * element, Leases::Use::exclusive);
  if (send.begin >= recv.end || recv.begin >= send.end) return;
  const char* why = call.kind == Collective::all_reduce   ? " without being the same"
                    : call.kind == Collective::all_gather ? ", and send isn't this peer's own block of recv"
                                                          : "";
  refuse(call, std::string("send and recv overlap") + why);
}

}  // namespace

void check_call(const CollectiveCall& call) {
  if (!is_collective(static_cast<std::uint8_t>(call.kind))) {
    throw EngineError({ErrorCode::invalid_argument, "start: unknown kind of collective", {}});
  }
  if (!is_dtype(static_cast<std::uint8_t>(call.dtype))) refuse(call, "unknown dtype");
  if (!is_reduce_op(static_cast<std::uint8_t>(call.op))) refuse(call, "unknown reduction");
  check_quantization(call);
  if (is_v(call) && call.kind != Collective::all_to_all) refuse(call, "counts per rank are for all_to_all only");
  switch (call.kind) {
    case Collective::barrier:
      break;
    case Collective::all_to_all:
      check_buffer(call, "send", call.send, call.send_count, is_v(call));
      check_buffer(call, "recv", call.recv, call.recv_count, is_v(call));
      break;
    case Collective::broadcast:
    case Collective::recv:
    case Collective::scatter:
      check_buffer(call, "recv", call.recv, call.recv_count, false);
      check_buffer(call, "send", call.send, call.send_count, true);
      break;
    case Collective::send:
    case Collective::gather:
      check_buffer(call, "send", call.send, call.send_count, false);
      check_buffer(call, "recv", call.recv, call.recv_count, true);
      break;
    case Collective::all_reduce:
    case Collective::reduce_scatter:
    case Collective::all_gather:
      check_buffer(call, "send", call.send, call.send_count, false);
      check_buffer(call, "recv", call.recv, call.recv_count, false);
      break;
  }
}

void check_call_in(const CollectiveCall& call, const InstalledView& view) {
  check_peer(call, view);
  check_group_size(call, view);
  const std::uint32_t ranks = view.group_size;
  const bool at_root = call.peer == view.self;
  switch (call.kind) {
    case Collective::all_reduce:
      if (call.send_count != call.recv_count) refuse(call, "send and recv differ in length");
      break;
    case Collective::reduce_scatter:
      check_times(call, "send", call.send_count, "recv", call.recv_count, ranks);
      break;
    case Collective::all_gather:
      check_times(call, "recv", call.recv_count, "send", call.send_count, ranks);
      break;
    case Collective::gather:
      if (at_root) check_times(call, "recv", call.recv_count, "send", call.send_count, ranks);
      if (!at_root && call.recv_count != 0) refuse(call, "only the root has a buffer to receive into");
      break;
    case Collective::scatter:
      if (at_root) check_times(call, "send", call.send_count, "recv", call.recv_count, ranks);
      if (!at_root && call.send_count != 0) refuse(call, "only the root has a buffer to send from");
      break;
    case Collective::all_to_all:
      if (is_v(call)) {
        if (call.send_counts.size() != ranks || call.recv_counts.size() != ranks) {
          refuse(call, "there must be a count for each of the " + std::to_string(ranks) + " members, to send and to " +
                           "receive");
        }
        check_counts(call, "send", call.send_counts, call.send_count);
        check_counts(call, "recv", call.recv_counts, call.recv_count);
        if (call.send_counts[view.rank] != call.recv_counts[view.rank]) {
          refuse(call, "this peer sends itself " + std::to_string(call.send_counts[view.rank]) +
                           " elements and receives " + std::to_string(call.recv_counts[view.rank]));
        }
      } else if (call.send_count != call.recv_count || call.send_count % ranks != 0) {
        refuse(call, "without counts, send and recv must be equally long, and divide into " + std::to_string(ranks) +
                         " blocks");
      }
      break;
    case Collective::broadcast:
    case Collective::barrier:
    case Collective::send:
    case Collective::recv:
      break;
  }
  check_overlap(call, view);
}

std::vector<Leases::Range> ranges_of(const CollectiveCall& call, const InstalledView& view) {
  const std::size_t element = element_bytes(call.dtype);
  std::vector<Leases::Range> ranges;
  if (call.recv_count > 0) {
    const bool read_only = call.kind == Collective::broadcast && call.peer == view.self;
    ranges.push_back(Leases::range(call.recv, call.recv_count * element,
                                   read_only ? Leases::Use::shared : Leases::Use::exclusive));
  }
  const bool in_place = call.recv_count > 0 && call.send == place_in_recv(call, view);
  if (call.send_count > 0 && !in_place) {
    ranges.push_back(Leases::range(call.send, call.send_count * element, Leases::Use::shared));
  }
  return ranges;
}

}  // namespace pccl
