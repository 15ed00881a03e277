// How long planning takes, without Node: for shapes of known models, batches with a few hot experts and uneven sources;
// prints the median and the largest time of many rounds, in microseconds.
//
//   planner_bench [--rounds 200]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "moe/planner.h"

namespace {

using pccl::moe::Expert;
using pccl::moe::Plan;
using pccl::moe::Planner;
using pccl::moe::PlanRequest;
using pccl::moe::Rank;

// 8192 tokens per rank with 8 slots each; weights fall as a power of a random draw, so that few experts are hot.
PlanRequest make_request(Rank ranks, Expert experts, std::mt19937& random) {
  std::uniform_real_distribution<double> uniform(0, 1);
  PlanRequest request;
  request.ranks = ranks;
  request.experts = experts;
  request.counts.resize(std::size_t{ranks} * experts);
  std::vector<double> weights(experts);
  double sum = 0;
  for (double& weight : weights) sum += weight = std::pow(uniform(random), 6);
  for (std::size_t i = 0; i < request.counts.size(); ++i) {
    const double mean = 8192 * 8 * weights[i % experts] / sum;
    request.counts[i] = static_cast<pccl::moe::Copies>(mean * (0.5 + uniform(random)));
  }
  for (Expert expert = 0; expert < experts; ++expert) request.owners.push_back(expert * ranks / experts);
  request.speeds.assign(ranks, 1);
  for (Rank rank = 0; rank < ranks; ++rank) request.nodes.push_back(rank / 8);
  request.imports_max.assign(ranks, experts);
  request.imbalance_min = 0;
  request.cost = {1, 20, 1714, 12000, 0.05, 0.3};
  return request;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 200;
  if (argc == 3 && std::strcmp(argv[1], "--rounds") == 0) rounds = std::atoi(argv[2]);
  if (argc != 1 && (argc != 3 || rounds < 1)) {
    std::fprintf(stderr, "usage: planner_bench [--rounds N]\n");
    return 2;
  }
  std::printf("%7s %5s %7s %10s %10s %7s\n", "experts", "ranks", "planner", "median/us", "max/us", "loans");
  const struct {
    Expert experts;
    Rank ranks;
  } shapes[] = {{32, 8}, {128, 8}, {256, 8}, {384, 8}, {128, 16}, {256, 32}, {384, 64}};
  for (const auto& shape : shapes) {
    for (const auto& [name, planner] : {std::pair{"lla", Planner::lla}, {"auto", Planner::automatic}}) {
      std::mt19937 random(7);
      std::vector<double> times;
      std::size_t loans = 0;
      for (int round = 0; round < rounds; ++round) {
        PlanRequest request = make_request(shape.ranks, shape.experts, random);
        request.planner = planner;
        const auto begin = std::chrono::steady_clock::now();
        const Plan plan = pccl::moe::make_plan(request);
        times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
        loans += plan.loans.size();
      }
      std::sort(times.begin(), times.end());
      std::printf("%7u %5u %7s %10.1f %10.1f %7.1f\n", shape.experts, shape.ranks, name, times[times.size() / 2],
                  times.back(), static_cast<double>(loans) / rounds);
    }
  }
  return 0;
}
