#pragma once

#include <cstdint>

namespace pccl {

// How two peers' processes are connected.
enum class Path : std::uint8_t { tcp, shm };

}  // namespace pccl
