#include "collective/make_op.h"

#include <utility>

#include "base/collectives.h"
#include "base/dtype.h"
#include "collective/alone_op.h"
#include "collective/blocks_op.h"
#include "collective/chain_broadcast.h"
#include "collective/crossover.h"
#include "collective/direct_blocks.h"
#include "collective/direct_reduce.h"
#include "collective/hierarchical_reduce.h"
#include "collective/one_shot_reduce.h"
#include "collective/pairwise_reduce_scatter.h"
#include "collective/quantized_reduce.h"
#include "collective/ring_op.h"

namespace pccl {
namespace {

// Short enough to go with the `ready`. All members know it, but for an all_to_all, whose blocks may differ.
bool is_short(const CollectiveCall& call, const Op::Seat& seat) {
  if (call.kind == Collective::all_to_all) return false;
  const std::uint64_t bytes = describe_call(call).count * element_bytes(call.dtype);
  return bytes <= (traits(call.kind).reduces ? one_shot_bytes_max(seat.ranks) : block_in_ready_bytes_max);
}

// Over the links.
std::unique_ptr<Op> make_link_op(const Op::Request& request, const Op::Context& context) {
  const Op::Seat& seat = context.seat;
  const bool fits_ready = seat.fully_linked && is_short(request.call, seat);
  switch (request.call.kind) {
    case Collective::all_reduce:
      if (fits_ready) return std::make_unique<OneShotReduce>(request, context);
      return std::make_unique<RingOp>(request, context);
    case Collective::reduce_scatter:
      if (fits_ready) return std::make_unique<OneShotReduce>(request, context);
      if (seat.fully_linked) return std::make_unique<PairwiseReduceScatter>(request, context);
      return std::make_unique<RingOp>(request, context);
    case Collective::all_gather:
      if (fits_ready) return std::make_unique<BlocksOp>(request, context);
      return std::make_unique<RingOp>(request, context);
    case Collective::broadcast:
      if (fits_ready) return std::make_unique<BlocksOp>(request, context);
      return std::make_unique<ChainBroadcast>(request, context);
    case Collective::all_to_all:
    case Collective::gather:
    case Collective::scatter:
    case Collective::barrier:
    case Collective::send:
    case Collective::recv:
      return std::make_unique<BlocksOp>(request, context);
  }
  return nullptr;  // not reached: calls are checked
}

// All members are on one host, or both of a send and recv.
bool is_on_one_host(const CollectiveCall& call, const Op::Context& context) {
  return traits(call.kind).of_two ? context.hosts.same(context.seat.rank, context.seat.peer_rank)
                                  : context.seat.fully_linked && context.hosts.is_one();
}

}  // namespace

std::unique_ptr<Op> make_op(const Op::Request& request, const Op::Context& context) {
  const auto [kind, seat] = std::pair(request.call.kind, context.seat);
  if (request.call.quantization.format != QuantizedFormat::none) {
    return std::make_unique<QuantizedReduce>(request, context);
  }
  if (seat.ranks == 1) return std::make_unique<AloneOp>(request, context);
  std::unique_ptr<Op> links = make_link_op(request, context);
  if (is_short(request.call, seat)) return links;
  if (kind == Collective::all_reduce && seat.ranks < direct_all_reduce_ranks_min) return links;
  if (is_on_one_host(request.call, context)) {
    const bool reduces = traits(kind).reduces;
    if (reduces) return std::make_unique<DirectReduce>(request, context, std::move(links));
    return std::make_unique<DirectBlocks>(request, context, std::move(links));
  }
  const bool shares_hosts = seat.fully_linked && context.hosts.leaders().size() < seat.ranks;
  if (kind == Collective::all_reduce && shares_hosts) {
    return std::make_unique<HierarchicalReduce>(request, context, std::move(links));
  }
  return links;
}

}  // namespace pccl
