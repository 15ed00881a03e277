// What is to be known of element types and reductions without computing with them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "pccl/engine.h"

namespace pccl {

struct DTypeTraits {
  const char* name;
  std::uint8_t bytes;
  bool is_floating_point;
};

// By the numbers of DType, which are also those on the wire.
inline constexpr std::array<DTypeTraits, 12> dtypes = {{
    {"f32", 4, true},
    {"f64", 8, true},
    {"i32", 4, false},
    {"u8", 1, false},
    {"i8", 1, false},
    {"u16", 2, false},
    {"i16", 2, false},
    {"u32", 4, false},
    {"u64", 8, false},
    {"i64", 8, false},
    {"f16", 2, true},
    {"bf16", 2, true},
}};
static_assert(dtypes.size() == static_cast<std::size_t>(DType::bf16) + 1);

// By the numbers of ReduceOp, likewise.
inline constexpr std::array<const char*, 5> reduce_op_names = {"sum", "avg", "max", "min", "prod"};
static_assert(reduce_op_names.size() == static_cast<std::size_t>(ReduceOp::prod) + 1);

// Whether a number from outside is one of them.
constexpr bool is_dtype(std::uint8_t number) { return number < dtypes.size(); }
constexpr bool is_reduce_op(std::uint8_t number) { return number < reduce_op_names.size(); }

constexpr const DTypeTraits& traits(DType dtype) { return dtypes[static_cast<std::size_t>(dtype)]; }
constexpr std::size_t element_bytes(DType dtype) { return traits(dtype).bytes; }
constexpr const char* dtype_name(DType dtype) { return traits(dtype).name; }
constexpr bool is_floating_point(DType dtype) { return traits(dtype).is_floating_point; }
constexpr const char* reduce_op_name(ReduceOp op) { return reduce_op_names[static_cast<std::size_t>(op)]; }

}  // namespace pccl
