// What is to be known of an element type without computing with it.
#pragma once

#include <cstddef>

#include "pccl/engine.h"

namespace pccl {

constexpr std::size_t element_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

constexpr const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
  }
  return "?";
}

}  // namespace pccl
