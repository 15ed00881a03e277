// Where the copies of a step travel: from the rank whose tokens they are to those that compute them, and back. All of
// it follows from the counts and the plan, which every rank has, except for which copies share a row: a token that goes
// to several experts of one rank travels there once. So the messages have headers, whose sizes are known as well.
//
// A rank sends one message to each rank, its copies in the order of (expert, position). Messages lie in memory in the
// order of `blocks`, and results come back in the same order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/plan.h"

namespace pccl::moe {

// What all ranks know.
struct Step {
  Rank ranks = 0;
  Expert experts = 0;
  std::span<const Copies> counts;  // [ranks * experts]
  std::vector<Interval> intervals;
  std::vector<std::uint32_t> first_interval;  // [experts + 1]
  std::vector<Rank> blocks;                   // [ranks]: whose message is first in memory, second, …
  bool has_gates = false;                     // whether headers carry the copies' gates
};

// Throws EngineError with invalid_argument: intervals that don't cover the counts, ranks that don't exist.
void check_step(const Step& step);

// Numbers per block are in the order of `blocks`.
struct Outgoing {
  std::vector<std::uint32_t> tokens;       // whose rows are sent, block after block, ascending in each
  std::vector<std::uint32_t> row_counts;   // per block
  std::vector<std::uint32_t> copy_counts;  // per block
  // Per block: the number of rows, then for each copy its row in the block, then the bits of the copies' gates.
  std::vector<std::uint32_t> headers;
  std::vector<std::uint32_t> header_counts;  // per block
  std::vector<std::uint32_t> places;         // [slots]: the row of a slot's result among those that come back
};
// `experts` and `gates` of each slot; a token's slots are first_slot[t] to first_slot[t + 1]. Throws EngineError with
// invalid_argument if the slots aren't as many of each expert as the counts of `rank` say.
Outgoing address_copies(const Step& step, Rank rank, std::span<const std::uint32_t> first_slot,
                        std::span<const std::uint32_t> experts, std::span<const float> gates);

// Consecutive positions of one expert.
struct CopyList {
  Expert expert = 0;
  Copies first_position = 0;
  std::uint32_t copies = 0;
};

struct Incoming {
  std::vector<CopyList> lists;             // by expert and position
  std::vector<std::uint32_t> row_counts;   // per block
  std::vector<std::uint32_t> copy_counts;  // per block
  // Of each copy, in the order of the lists:
  std::vector<std::uint32_t> rows;     // its row among those received
  std::vector<std::uint32_t> results;  // the row of its result among those sent back
  std::vector<float> gates;            // if headers carry them
};
// What `rank` received: `headers` holds a block from each rank. Throws EngineError with invalid_argument if they don't
// fit the plan, which is then another one on another rank.
Incoming receive_copies(const Step& step, Rank rank, std::span<const std::uint32_t> headers);

}  // namespace pccl::moe
