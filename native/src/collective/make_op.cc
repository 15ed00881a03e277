#include "collective/make_op.h"

#include "base/dtype.h"
#include "collective/alone_op.h"
#include "collective/blocks_op.h"
#include "collective/chain_broadcast.h"
#include "collective/crossover.h"
#include "collective/one_shot_reduce.h"
#include "collective/pairwise_reduce_scatter.h"
#include "collective/ring_op.h"

namespace pccl {

std::unique_ptr<Op> make_op(const Op::Request& request, const Op::Context& context) {
  const CollectiveCall& call = request.call;
  const Op::Seat& seat = context.seat;
  if (seat.ranks == 1) return std::make_unique<AloneOp>(request, context);
  const std::size_t element = element_bytes(call.dtype);
  const bool one_shot = seat.fully_linked && call.recv_count * element <= one_shot_bytes_max(seat.ranks);
  switch (call.kind) {
    case Collective::all_reduce:
      if (one_shot) return std::make_unique<OneShotReduce>(request, context);
      return std::make_unique<RingOp>(request, context);
    case Collective::reduce_scatter:
      if (one_shot) return std::make_unique<OneShotReduce>(request, context);
      if (seat.fully_linked) return std::make_unique<PairwiseReduceScatter>(request, context);
      return std::make_unique<RingOp>(request, context);
    case Collective::all_gather:
      if (!seat.fully_linked || call.send_count * element > block_in_ready_bytes_max) {
        return std::make_unique<RingOp>(request, context);
      }
      return std::make_unique<BlocksOp>(request, context);
    case Collective::broadcast:
      if (!seat.fully_linked || call.recv_count * element > block_in_ready_bytes_max) {
        return std::make_unique<ChainBroadcast>(request, context);
      }
      return std::make_unique<BlocksOp>(request, context);
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

}  // namespace pccl
