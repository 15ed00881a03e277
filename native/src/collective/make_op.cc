#include "collective/make_op.h"

#include "collective/alone_op.h"
#include "collective/ring_op.h"

namespace pccl {

std::unique_ptr<Op> make_op(const Op::Request& request, const Op::Context& context) {
  if (context.seat.ranks == 1) return std::make_unique<AloneOp>(request, context);
  return std::make_unique<RingOp>(request, context);
}

}  // namespace pccl
