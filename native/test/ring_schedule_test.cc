// The schedule without any network: what one rank sends in a step is what the next one expects, and after all
// steps every rank has every contribution in every element.
#include "collective/ring_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "transport/ring_links.h"

namespace pccl {
namespace {

class Schedule : public testing::TestWithParam<std::uint32_t> {};

TEST_P(Schedule, BringsEveryContributionEverywhere) {
  const std::uint32_t ranks = GetParam();
  const std::uint64_t chunk_elements = limits::chunk_bytes / 4;
  std::mt19937 random(ranks);
  for (const std::uint64_t count : {std::uint64_t{1}, std::uint64_t{ranks}, std::uint64_t{1000}, ranks * chunk_elements,
                                    ranks * chunk_elements + 1, 3 * ranks * chunk_elements - 7}) {
    // Per rank and chunk of the array (by its first element): a bit for each contribution.
    std::vector<std::map<std::uint64_t, std::uint64_t>> held(ranks);
    std::vector<RingSchedule> schedules;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) schedules.push_back(RingSchedule::all_reduce(rank, ranks, count, 4));
    const auto held_by = [&](std::uint32_t rank, std::uint64_t at) -> std::uint64_t& {
      return held[rank].try_emplace(at, std::uint64_t{1} << rank).first->second;
    };
    struct Sendable {
      std::uint32_t rank, step;
      std::uint64_t index;
    };
    std::vector<Sendable> sendable;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      for (std::uint64_t i = 0; i < schedules[rank].chunks(schedules[rank].sent_slice(0)); ++i) {
        sendable.push_back({rank, 0, i});
      }
    }
    std::uint64_t elements = 0;
    while (!sendable.empty()) {
      // Any order, as over several connections.
      std::swap(sendable[random() % sendable.size()], sendable.back());
      const auto [rank, step, index] = sendable.back();
      sendable.pop_back();
      const std::uint32_t next = (rank + 1) % ranks;
      const auto sent = schedules[rank].sent_chunk(step, index);
      ASSERT_LT(index, schedules[next].chunks(schedules[next].received_slice(step)));
      const auto expected = schedules[next].received_chunk(step, index);
      ASSERT_EQ(sent.step, expected.step);
      ASSERT_EQ(sent.index, expected.index);
      ASSERT_EQ(sent.begin_element, expected.begin_element);
      ASSERT_EQ(sent.elements, expected.elements);
      ASSERT_GT(sent.elements, 0u);
      ASSERT_LE(sent.begin_element + sent.elements, count);
      const std::uint64_t value = held_by(rank, sent.begin_element);
      std::uint64_t& into = held_by(next, sent.begin_element);
      if (schedules[next].combines(step)) {
        ASSERT_EQ(into & value, 0u);  // nothing is added twice
        into |= value;
      } else {
        // What is overwritten was sent that many steps before.
        const auto before = schedules[next].sent_chunk(step - (ranks - 1), index);
        ASSERT_EQ(before.begin_element, sent.begin_element);
        into = value;
      }
      if (step + 1 < schedules[next].steps()) sendable.push_back({next, step + 1, index});
      elements += sent.elements;
    }
    ASSERT_EQ(elements, 2 * (ranks - 1) * count);
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      for (const auto& [at, value] : held[rank]) ASSERT_EQ(value, (std::uint64_t{1} << ranks) - 1) << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, Schedule, testing::Values(2, 3, 4, 5, 7, 8, 16));

// Each line of linked_ranks.txt: the size of a group, and the ranks that rank 0 is linked with. The control plane's
// tests read it too.
TEST(RingLinks, AreThoseOfTheTable) {
  std::ifstream table(PCCL_TEST_DATA "/linked_ranks.txt");
  std::uint32_t lines = 0;
  for (std::string line; std::getline(table, line); ++lines) {
    std::istringstream fields(line);
    std::uint32_t size = 0;
    char colon = 0;
    ASSERT_TRUE(fields >> size >> colon);
    std::vector<std::uint32_t> others;
    for (std::uint32_t other = 0; fields >> other;) others.push_back(other);
    for (std::uint32_t rank = 0; rank < size; ++rank) {
      std::vector<std::uint32_t> expected;
      for (const std::uint32_t other : others) expected.push_back((rank + other) % size);
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(linked_ranks(rank, size), expected) << rank << " of " << size;
    }
  }
  EXPECT_EQ(lines, 33u);
}

TEST(RingLinks, AreThereForNeighboursAndDisseminationPartnersBothWays) {
  for (std::uint32_t size = 2; size < 40; ++size) {
    for (std::uint32_t rank = 0; rank < size; ++rank) {
      const auto linked = linked_ranks(rank, size);
      for (std::uint32_t round = 0; round < dissemination_rounds(size); ++round) {
        EXPECT_TRUE(std::binary_search(linked.begin(), linked.end(), (rank + (1u << round)) % size));
      }
      for (const std::uint32_t other : linked) {
        const auto back = linked_ranks(other, size);
        EXPECT_TRUE(std::binary_search(back.begin(), back.end(), rank));
      }
    }
  }
}

}  // namespace
}  // namespace pccl
