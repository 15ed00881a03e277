#include "collective/make_op.h"

#include <utility>

#include "collective/alone_op.h"
#include "collective/direct_reduce.h"
#include "collective/hierarchical_reduce.h"
#include "collective/ring_op.h"

namespace pccl {
namespace {

// Over the links.
std::unique_ptr<Op> make_link_op(const Op::Request& request, const Op::Context& context) {
  return std::make_unique<RingOp>(request, context);
}

}  // namespace

std::unique_ptr<Op> make_op(const Op::Request& request, const Op::Context& context) {
  const Op::Seat& seat = context.seat;
  if (seat.ranks == 1) return std::make_unique<AloneOp>(request, context);
  std::unique_ptr<Op> links = make_link_op(request, context);
  if (!seat.fully_linked || context.hosts.leaders().size() == seat.ranks) return links;
  if (request.call.kind == Collective::all_reduce) {
    if (context.hosts.is_one()) return std::make_unique<DirectReduce>(request, context, std::move(links));
    return std::make_unique<HierarchicalReduce>(request, context, std::move(links));
  }
  return links;
}

}  // namespace pccl
