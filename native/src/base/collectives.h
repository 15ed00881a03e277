// What is to be known of the kinds of collectives without running one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "pccl/engine.h"

namespace pccl {

struct CollectiveTraits {
  const char* name;
  bool reduces;
  bool has_root;
  bool of_two;
  // The ranks say how long the buffers are, or what of them is whose.
  bool bound_to_view;
};

// By the numbers of Collective, which are also those on the wire.
inline constexpr std::array<CollectiveTraits, 10> collectives = {{
    {"all_reduce", true, false, false, false},
    {"reduce_scatter", true, false, false, true},
    {"all_gather", false, false, false, true},
    {"broadcast", false, true, false, false},
    {"all_to_all", false, false, false, true},
    {"gather", false, true, false, true},
    {"scatter", false, true, false, true},
    {"barrier", false, false, false, false},
    {"send", false, false, true, false},
    {"recv", false, false, true, false},
}};
static_assert(collectives.size() == static_cast<std::size_t>(Collective::recv) + 1);

// Whether a number from outside is one of them.
constexpr bool is_collective(std::uint8_t number) { return number < collectives.size(); }
constexpr const CollectiveTraits& traits(Collective kind) { return collectives[static_cast<std::size_t>(kind)]; }

}  // namespace pccl
