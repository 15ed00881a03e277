#pragma once

#include <string>

namespace pccl {

// Names this boot of this machine and this thread's network namespace, in which abstract sockets are found: 32 hex
// digits, which tell neither; empty when the system doesn't say.
std::string read_host_id();

}  // namespace pccl
