// Which algorithm carries a call out. Every member of an op comes to the same answer, for it goes by what they agree
// on, and by the view.
#pragma once

#include <memory>

#include "collective/op.h"

namespace pccl {

std::unique_ptr<Op> make_op(const Op::Request& request, const Op::Context& context);

}  // namespace pccl
