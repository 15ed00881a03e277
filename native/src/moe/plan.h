// What a planner of expert parallelism is asked, and what it answers. Words used throughout:
//   copy     one token at one of the experts that it was routed to; the unit of load,
//   owner    the rank that holds an expert's weights (its native rank),
//   loan     copies of an expert that another rank computes this step, with the owner's weights,
//   position copies of an expert are numbered by (source rank, index on that rank), from 0.
#pragma once

#include <cstdint>
#include <vector>

namespace pccl::moe {

using Rank = std::uint32_t;
using Expert = std::uint32_t;
using Copies = std::int64_t;

enum class Planner : std::uint8_t { ep, lla, automatic, eplb };

// How long things take, in seconds. "Far" is between ranks of different nodes.
struct CostModel {
  double copy_seconds = 1;              // one copy through one expert, on a rank of speed 1
  double expert_seconds = 0;            // what an expert with any copies costs besides them, on a rank of speed 1
  double transfer_seconds = 256;        // one expert's weights to another rank of the node
  double far_transfer_seconds = 256;    // the same to another node
  double cross_copy_seconds = 0;        // one copy to another rank of the node and its result back
  double far_cross_copy_seconds = 0;    // the same to another node
  double lend_seconds = 0;              // what a step with any loans costs besides, on every rank
};

struct PlanRequest {
  Rank ranks = 0;
  Expert experts = 0;
  std::vector<Copies> counts;     // [ranks * experts]: copies on rank r for expert e
  std::vector<Rank> owners;       // [experts]
  std::vector<double> speeds;     // [ranks], relative; only their ratios matter to capacities
  std::vector<std::uint32_t> nodes;        // [ranks]: ranks with equal numbers share a node
  std::vector<std::uint32_t> imports_max;  // [ranks]: experts that a rank may borrow at once

  Planner planner = Planner::automatic;
  double capacity_factor = 1;      // alpha
  Copies chunk_copies_min = 64;    // m: no smaller loan is made
  double imbalance_min = 1.3;      // lambda: below this ratio lla lends nothing; <= 0: always plans
  bool strict_reference = false;   // lla as its authors' code does it
  CostModel cost;                  // predictions, and what `automatic` minimizes
  std::vector<double> statistics;  // [experts]: past loads, what eplb replicates by
  std::uint32_t redundant_experts = 0;  // eplb's replicas beyond one per expert
};

struct Loan {
  Expert expert = 0;
  Rank target = 0;
  Copies copies = 0;
};

// Positions [start, end) of an expert, computed by `rank`.
struct Interval {
  Rank rank = 0;
  Copies start = 0;
  Copies end = 0;
};

// Seconds per rank as the cost model has them; a step takes as long as its slowest rank.
struct Prediction {
  std::vector<double> rank_seconds;
  double step_seconds = 0;
};

struct Plan {
  // Strict mode computes loans whether or not they are worth it, as its golden data does; then this says which.
  bool is_applied = false;
  std::vector<Loan> loans;                    // in the order in which they were made
  std::vector<Interval> intervals;            // of expert 0, of expert 1, …; those of an expert cover its positions
  std::vector<std::uint32_t> first_interval;  // [experts + 1]
  std::vector<Copies> loads_before;           // [ranks]
  std::vector<Copies> loads_after;            // [ranks]
  std::vector<Copies> sent_before;            // [ranks * ranks]: copies from a source rank to a computing rank
  std::vector<Copies> sent_after;             // [ranks * ranks]
  Prediction before;
  Prediction after;
};

}  // namespace pccl::moe
