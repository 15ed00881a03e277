// A collective of a group of one: its result is its input.
#pragma once

#include <cstring>

#include "collective/op.h"

namespace pccl {

class AloneOp final : public Op {
 public:
  AloneOp(const Request& request, const Context& context) : Op(request, context, Algorithm::alone) {
    set_partners({}, true);
  }

  bool prepare() override {
    const std::size_t bytes = call().recv_count * element_bytes();
    if (call().send != nullptr && call().send != call().recv && bytes > 0) {
      std::memcpy(call().recv, call().send, bytes);
    }
    return true;
  }
  bool done() const override { return true; }
};

}  // namespace pccl
