#pragma once

#include <cstddef>

#include "pccl/engine.h"

namespace pccl {

constexpr std::size_t element_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

}  // namespace pccl
