// Whether a collective can be what its caller wants, before anything changes.
#pragma once

#include <vector>

#include "engine/leases.h"
#include "pccl/engine.h"

namespace pccl {

// Throw EngineError, invalid_argument. The second one is for a call that the first one has passed.
void check_call(const CollectiveCall& call);
void check_call_in(const CollectiveCall& call, const InstalledView& view);

// The memory that it uses.
std::vector<Leases::Range> ranges_of(const CollectiveCall& call, const InstalledView& view);

}  // namespace pccl
