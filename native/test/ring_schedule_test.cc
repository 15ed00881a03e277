// The schedule without any network: what one rank sends in a step is what the next one expects, and after all
// steps every rank has every contribution in every element.
#include "collective/ring_schedule.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "transport/ring_links.h"

namespace pccl {
namespace {

class Schedule : public testing::TestWithParam<std::uint32_t> {};

TEST_P(Schedule, BringsEveryContributionEverywhere) {
  const std::uint32_t ranks = GetParam();
  const std::uint64_t chunk_elements = limits::chunk_bytes / 4;
  for (const std::uint64_t count : {std::uint64_t{1}, std::uint64_t{ranks}, std::uint64_t{1000}, ranks * chunk_elements,
                                    ranks * chunk_elements + 1, 3 * ranks * chunk_elements - 7}) {
    // Per rank and chunk of the array (by its first element): a bit for each contribution.
    std::vector<std::map<std::uint64_t, std::uint64_t>> held(ranks);
    std::vector<RingSchedule> schedules;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) schedules.emplace_back(rank, ranks, count, 4);
    std::vector<RingSchedule::Cursor> sends, receives;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      sends.emplace_back(schedules[rank], true);
      receives.emplace_back(schedules[rank], false);
    }
    const auto held_by = [&](std::uint32_t rank, std::uint64_t at) -> std::uint64_t& {
      return held[rank].try_emplace(at, std::uint64_t{1} << rank).first->second;
    };
    bool moved = true;
    std::uint64_t elements = 0;
    while (moved) {
      moved = false;
      for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        const std::uint32_t next = (rank + 1) % ranks;
        const std::uint64_t first = schedules[rank].chunks(schedules[rank].sent_slice(0));
        if (sends[rank].at_end() || sends[rank].passed() >= first + receives[rank].passed()) continue;
        const auto sent = sends[rank].chunk();
        ASSERT_FALSE(receives[next].at_end());
        const auto expected = receives[next].chunk();
        ASSERT_EQ(sent.step, expected.step);
        ASSERT_EQ(sent.index, expected.index);
        ASSERT_EQ(sent.begin_element, expected.begin_element);
        ASSERT_EQ(sent.elements, expected.elements);
        ASSERT_GT(sent.elements, 0u);
        ASSERT_LE(sent.begin_element + sent.elements, count);
        const std::uint64_t value = held_by(rank, sent.begin_element);
        std::uint64_t& into = held_by(next, sent.begin_element);
        if (schedules[next].combines(sent.step)) {
          ASSERT_EQ(into & value, 0u);  // nothing is added twice
          into |= value;
        } else {
          into = value;
        }
        sends[rank].advance();
        receives[next].advance();
        elements += sent.elements;
        moved = true;
      }
    }
    ASSERT_EQ(elements, 2 * (ranks - 1) * count);
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      ASSERT_TRUE(sends[rank].at_end() && receives[rank].at_end());
      for (const auto& [at, value] : held[rank]) ASSERT_EQ(value, (std::uint64_t{1} << ranks) - 1) << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, Schedule, testing::Values(2, 3, 4, 5, 7, 8, 16));

TEST(RingLinks, ConnectNeighboursAndDisseminationPartnersBothWays) {
  EXPECT_TRUE(linked_ranks(0, 1).empty());
  EXPECT_EQ(linked_ranks(0, 2), (std::vector<std::uint32_t>{1}));
  EXPECT_EQ(linked_ranks(1, 3), (std::vector<std::uint32_t>{0, 2}));
  EXPECT_EQ(linked_ranks(0, 8), (std::vector<std::uint32_t>{1, 2, 4, 6, 7}));
  for (std::uint32_t size = 2; size < 40; ++size) {
    for (std::uint32_t rank = 0; rank < size; ++rank) {
      for (const std::uint32_t other : linked_ranks(rank, size)) {
        const auto back = linked_ranks(other, size);
        EXPECT_NE(std::find(back.begin(), back.end(), rank), back.end());
      }
    }
  }
}

}  // namespace
}  // namespace pccl
