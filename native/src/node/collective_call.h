// The CollectiveCall of addon.ts as the engine's.
#pragma once

#include <napi.h>

#include "node/buffers.h"
#include "pccl/engine.h"

namespace pccl::node {

struct ReadCall {
  CollectiveCall call;
  Lease lease;  // of its buffers
};

// ERR_PCCL_INVALID_ARGUMENT on anything else. What depends on the group's size the engine checks.
ReadCall read_collective_call(Napi::Value value);

}  // namespace pccl::node
