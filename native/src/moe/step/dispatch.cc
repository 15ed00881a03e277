#include "moe/step/dispatch.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "pccl/engine.h"

namespace pccl::moe {

namespace {

constexpr std::uint32_t nobody = std::numeric_limits<std::uint32_t>::max();

void require(bool condition, const std::string& what) {
  if (!condition) throw EngineError({ErrorCode::invalid_argument, "dispatch: " + what + ".", std::nullopt});
}

std::vector<std::uint32_t> block_of_rank(const Step& step) {
  std::vector<std::uint32_t> blocks(step.ranks, nobody);
  for (std::uint32_t block = 0; block < step.ranks; ++block) blocks[step.blocks[block]] = block;
  return blocks;
}

std::span<const Interval> intervals_of(const Step& step, Expert expert) {
  return std::span(step.intervals)
      .subspan(step.first_interval[expert], step.first_interval[expert + 1] - step.first_interval[expert]);
}

// The first position of each expert that is of `rank`.
std::vector<Copies> first_positions(const Step& step, Rank rank) {
  std::vector<Copies> first(step.experts);
  for (Rank before = 0; before < rank; ++before) {
    for (Expert expert = 0; expert < step.experts; ++expert) {
      first[expert] += step.counts[std::size_t{before} * step.experts + expert];
    }
  }
  return first;
}

std::uint32_t header_count(const Step& step, std::uint32_t copies) { return 1 + copies * (step.has_gates ? 2 : 1); }

std::vector<std::uint32_t> starts_of(const std::vector<std::uint32_t>& counts) {
  std::vector<std::uint32_t> starts;
  std::uint32_t start = 0;
  for (const std::uint32_t count : counts) {
    starts.push_back(start);
    start += count;
  }
  return starts;
}

// Slots by expert, those of an expert in their order: a counting sort.
std::vector<std::uint32_t> slots_by_expert(const Step& step, Rank rank, std::span<const std::uint32_t> experts) {
  std::vector<std::uint32_t> next(step.experts + 1);
  for (const std::uint32_t expert : experts) {
    require(expert < step.experts, "expert " + std::to_string(expert) + " doesn't exist");
    ++next[expert + 1];
  }
  for (Expert expert = 0; expert < step.experts; ++expert) {
    const Copies announced = step.counts[std::size_t{rank} * step.experts + expert];
    require(next[expert + 1] == announced, "rank " + std::to_string(rank) + " has " + std::to_string(next[expert + 1]) +
                                               " copies for expert " + std::to_string(expert) + ", and announced " +
                                               std::to_string(announced));
    next[expert + 1] += next[expert];
  }
  std::vector<std::uint32_t> slots(experts.size());
  for (std::uint32_t slot = 0; slot < experts.size(); ++slot) slots[next[experts[slot]]++] = slot;
  return slots;
}

// What of a rank's message goes where, before it is laid out.
struct Copy {
  std::uint32_t slot = 0;
  std::uint32_t token = 0;
};

}  // namespace

void check_step(const Step& step) {
  require(step.counts.size() == std::size_t{step.ranks} * step.experts, "counts must be a number per rank and expert");
  require(step.first_interval.size() == step.experts + std::size_t{1} && step.first_interval.front() == 0 &&
              step.first_interval.back() == step.intervals.size(),
          "firstInterval must be a number per expert and one more");
  std::vector<bool> is_block(step.ranks);
  for (const Rank rank : step.blocks) {
    require(rank < step.ranks && !is_block[rank], "blocks must be the ranks in some order");
    is_block[rank] = true;
  }
  require(step.blocks.size() == step.ranks, "blocks must be the ranks in some order");
  Copies total = 0;
  for (Expert expert = 0; expert < step.experts; ++expert) {
    require(step.first_interval[expert] <= step.first_interval[expert + 1], "firstInterval must not fall");
    Copies copies = 0;
    for (Rank rank = 0; rank < step.ranks; ++rank) copies += step.counts[std::size_t{rank} * step.experts + expert];
    Copies end = 0;
    for (const Interval& interval : intervals_of(step, expert)) {
      require(interval.rank < step.ranks && interval.start == end && interval.end > end,
              "the intervals of expert " + std::to_string(expert) + " must follow each other");
      end = interval.end;
    }
    require(end == copies, "the intervals of expert " + std::to_string(expert) + " must cover its copies");
    total += copies;
  }
  // Both directions of all messages, with their headers, are counted in 32 bits.
  require(total < Copies{1} << 30, "a step may have 2^30 copies at most; make it in parts");
}

Outgoing address_copies(const Step& step, Rank rank, std::span<const std::uint32_t> first_slot,
                        std::span<const std::uint32_t> experts, std::span<const float> gates) {
  require(!first_slot.empty() && first_slot.front() == 0 && first_slot.back() == experts.size() &&
              std::is_sorted(first_slot.begin(), first_slot.end()),
          "firstSlot must rise from 0 to the number of slots");
  require(!step.has_gates || gates.size() == experts.size(), "there must be a gate for each slot");
  const auto tokens = static_cast<std::uint32_t>(first_slot.size() - 1);
  std::vector<std::uint32_t> token_of(experts.size());
  for (std::uint32_t token = 0; token < tokens; ++token) {
    std::fill(token_of.begin() + first_slot[token], token_of.begin() + first_slot[token + 1], token);
  }

  const std::vector<std::uint32_t> block_of = block_of_rank(step);
  const std::vector<Copies> first = first_positions(step, rank);
  std::vector<std::vector<Copy>> messages(step.ranks);
  const std::vector<std::uint32_t> slots = slots_by_expert(step, rank, experts);
  std::size_t at = 0;
  for (Expert expert = 0; expert < step.experts; ++expert) {
    const Copies end = first[expert] + step.counts[std::size_t{rank} * step.experts + expert];
    Copies position = first[expert];
    for (const Interval& interval : intervals_of(step, expert)) {
      std::vector<Copy>& message = messages[block_of[interval.rank]];
      for (; position < std::min(interval.end, end); ++position, ++at) {
        message.push_back({slots[at], token_of[slots[at]]});
      }
    }
  }

  Outgoing out;
  out.places.resize(experts.size());
  out.tokens.reserve(experts.size());
  std::uint32_t place = 0;
  std::vector<std::uint32_t> row_of(tokens, nobody);
  for (const std::vector<Copy>& message : messages) {
    for (const Copy& copy : message) row_of[copy.token] = 0;
    std::uint32_t rows = 0;
    for (std::uint32_t token = 0; token < tokens; ++token) {
      if (row_of[token] == nobody) continue;
      row_of[token] = rows++;
      out.tokens.push_back(token);
    }
    const auto copies = static_cast<std::uint32_t>(message.size());
    out.row_counts.push_back(rows);
    out.copy_counts.push_back(copies);
    out.header_counts.push_back(header_count(step, copies));
    out.headers.push_back(rows);
    for (const Copy& copy : message) {
      out.headers.push_back(row_of[copy.token]);
      out.places[copy.slot] = place++;
    }
    if (step.has_gates) {
      for (const Copy& copy : message) out.headers.push_back(std::bit_cast<std::uint32_t>(gates[copy.slot]));
    }
    std::fill(row_of.begin(), row_of.end(), nobody);
  }
  return out;
}

Incoming receive_copies(const Step& step, Rank rank, std::span<const std::uint32_t> headers) {
  // Copies that lie one after the other both in a list and in a message.
  struct Part {
    std::uint32_t block = 0;
    std::uint32_t copies = 0;
  };
  Incoming in;
  in.copy_counts.resize(step.ranks);
  const std::vector<std::uint32_t> block_of = block_of_rank(step);
  std::vector<Part> parts;
  for (Expert expert = 0; expert < step.experts; ++expert) {
    for (const Interval& interval : intervals_of(step, expert)) {
      if (interval.rank != rank) continue;
      in.lists.push_back({expert, interval.start, static_cast<std::uint32_t>(interval.end - interval.start)});
      Copies begin = 0;
      for (Rank source = 0; source < step.ranks; ++source) {
        const Copies end = begin + step.counts[std::size_t{source} * step.experts + expert];
        const Copies overlap = std::min(end, interval.end) - std::max(begin, interval.start);
        if (overlap > 0) {
          parts.push_back({block_of[source], static_cast<std::uint32_t>(overlap)});
          in.copy_counts[block_of[source]] += static_cast<std::uint32_t>(overlap);
        }
        begin = end;
      }
    }
  }

  const char* const mismatch = "the ranks made different plans: another one's header doesn't fit this one's";
  std::vector<std::uint32_t> header_at;  // where each block's references begin
  std::uint32_t end = 0;
  for (const std::uint32_t copies : in.copy_counts) {
    require(end < headers.size(), mismatch);
    in.row_counts.push_back(headers[end]);
    header_at.push_back(end + 1);
    end += header_count(step, copies);
  }
  require(end == headers.size(), mismatch);
  const std::vector<std::uint32_t> row_starts = starts_of(in.row_counts);
  const std::vector<std::uint32_t> copy_starts = starts_of(in.copy_counts);

  std::vector<std::uint32_t> taken(step.ranks);
  for (const Part& part : parts) {
    const std::uint32_t block = part.block;
    for (std::uint32_t i = 0; i < part.copies; ++i, ++taken[block]) {
      const std::uint32_t reference = headers[header_at[block] + taken[block]];
      require(reference < in.row_counts[block], mismatch);
      in.rows.push_back(row_starts[block] + reference);
      in.results.push_back(copy_starts[block] + taken[block]);
      if (step.has_gates) {
        in.gates.push_back(std::bit_cast<float>(headers[header_at[block] + in.copy_counts[block] + taken[block]]));
      }
    }
  }
  return in;
}

}  // namespace pccl::moe
