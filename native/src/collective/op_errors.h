// What an op's errors say.
#pragma once

#include <string>
#include <vector>

#include "pccl/engine.h"
#include "transport/frame.h"

namespace pccl {

// "all_reduce with tag 5", "send to peer 3 with tag 5"
std::string op_name(const CollectiveCall& call);
// op_name, and which one it is: "(number 0 in epoch 2)".
std::string op_name(const CollectiveCall& call, const OpKey& key, Epoch view_epoch);
// "peer 3 and peer 4"
std::string peer_names(const std::vector<PeerId>& peers);
// Of an op called `name`.
Error abort_error(const std::string& name, const AbortReason& reason);

}  // namespace pccl
