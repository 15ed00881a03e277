// What the programs of this folder have in common: data that shows errors, and the way in which `pccl bench` times.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace peers {

// The same numbers as in packages/pccl-core/src/bench/measure.ts.
constexpr int estimate_runs = 2;
constexpr double warm_up_seconds = 0.1;
constexpr int warm_up_max = 500;
constexpr double target_seconds = 1;
constexpr int iterations_min = 7;
constexpr int iterations_max = 2000;

// Different for each source and position; sums of up to 64 of them are exact.
inline float value_at(std::uint32_t source, std::uint64_t position) {
  const auto index = static_cast<std::uint32_t>(position % 16381);
  std::uint32_t bits = (source + 1) * 0x9e3779b1u ^ (index + 1) * 0x85ebca77u;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  return static_cast<float>((bits >> 13) & 0x3ffff);
}

inline void fill(float* data, std::size_t count, std::uint32_t source) {
  for (std::size_t i = 0; i < count; ++i) data[i] = value_at(source, i);
}

[[noreturn]] inline void wrong(std::size_t index, float actual, float expected) {
  std::fprintf(stderr, "element %zu is %g instead of %g\n", index, actual, expected);
  std::exit(3);
}

inline void check(const float* data, std::size_t count, std::uint32_t source) {
  for (std::size_t i = 0; i < count; ++i) {
    if (data[i] != value_at(source, i)) wrong(i, data[i], value_at(source, i));
  }
}

inline void check_sum(const float* data, std::size_t count, std::uint32_t sources) {
  for (std::size_t i = 0; i < count; ++i) {
    float sum = 0;
    for (std::uint32_t source = 0; source < sources; ++source) sum += value_at(source, i);
    if (data[i] != sum) wrong(i, data[i], sum);
  }
}

// Times of `iterations` runs; max_over_ranks(values, count) makes them those of the slowest rank, everywhere.
template <typename Run, typename MaxOverRanks>
std::vector<double> time_runs(int iterations, Run run, MaxOverRanks max_over_ranks) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds(static_cast<std::size_t>(iterations));
  for (double& value : seconds) {
    const auto begin = Clock::now();
    run();
    value = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  max_over_ranks(seconds.data(), seconds.size());
  return seconds;
}

// To be called by all ranks, after the result was checked; rank 0 prints: median, minimum and maximum in seconds.
template <typename Run, typename MaxOverRanks>
void measure(int rank, Run run, MaxOverRanks max_over_ranks) {
  const std::vector<double> estimates = time_runs(estimate_runs, run, max_over_ranks);
  const double estimate = *std::min_element(estimates.begin(), estimates.end());
  time_runs(static_cast<int>(std::ceil(std::min<double>(warm_up_max, warm_up_seconds / estimate))), run,
            max_over_ranks);
  const double wanted = std::round(target_seconds / estimate);
  const int iterations = static_cast<int>(std::min<double>(iterations_max, std::max<double>(iterations_min, wanted)));
  std::vector<double> seconds = time_runs(iterations, run, max_over_ranks);
  if (rank != 0) return;
  std::sort(seconds.begin(), seconds.end());
  const double median = (seconds[(seconds.size() + 1) / 2 - 1] + seconds[seconds.size() / 2]) / 2;
  std::printf("%.9f %.9f %.9f\n", median, seconds.front(), seconds.back());
}

}  // namespace peers
