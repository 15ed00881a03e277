// How long an all-reduce takes between processes of this machine, without Node: forks one process per peer, links
// them over loopback, and prints the minimum and median over the rounds of the slowest peer's time, the processor
// time of all peers together (less disturbed by other load), and whether the sums were right.
//
// Short ones are to be repeated: a round is then that many, one after the other, and its time that of one on average.
//
//   all_reduce_bench [--peers 2] [--bytes 67108864] [--rounds 9] [--repeats 1] [--connections 1] [--in-place]
//                    [--transport shm|tcp]
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <string>
#include <vector>

#include "pccl/engine.h"

namespace {

constexpr std::uint32_t peers_max = 64;
constexpr std::uint32_t rounds_max = 1000;
constexpr std::uint32_t repeats_max = 100'000;
constexpr std::uint32_t connections_max = 64;

struct Options {
  std::uint32_t peers = 2;
  std::uint64_t bytes = 64 << 20;
  std::uint32_t rounds = 9;
  std::uint32_t repeats = 1;
  std::uint32_t connections = 1;  // per peer
  bool in_place = false;
  pccl::TransportMode transport = pccl::TransportMode::automatic;
};

// What the processes share: ports to link up, a barrier before each round, and the times.
struct Shared {
  std::atomic<std::uint16_t> ports[peers_max];
  std::atomic<std::uint32_t> prepared;
  std::atomic<std::uint32_t> arrived[rounds_max];
  std::atomic<std::uint32_t> wrong;
  double seconds[peers_max][rounds_max];
  double cpu_seconds[peers_max][rounds_max];
};

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

template <typename F>
void wait_until(F condition) {
  while (!condition()) ::usleep(50);
}

int run_peer(Shared& shared, const Options& options, std::uint32_t rank) {
  const auto engine = pccl::Engine::create({.connections_per_peer = options.connections, .transport = options.transport});
  std::promise<void> linked;
  engine->set_control({.prepared = [&](pccl::Epoch, const std::vector<pccl::LinkFailure>& failures) {
    if (!failures.empty()) std::fprintf(stderr, "%s\n", failures[0].reason.c_str());
    linked.set_value();
  }});
  shared.ports[rank] = engine->port();
  pccl::View view{.epoch = 1, .view_epoch = 1, .self = rank + 1, .key = {}, .ring = {}, .world_size = options.peers};
  for (std::uint32_t other = 0; other < options.peers; ++other) {
    wait_until([&] { return shared.ports[other] != 0; });
    view.ring.push_back({other + 1, "127.0.0.1", shared.ports[other]});
    view.hosts.push_back(options.transport == pccl::TransportMode::tcp ? other : 0);
  }
  engine->prepare(view, 10'000);
  linked.get_future().wait();
  engine->install(1, {});
  ++shared.prepared;
  wait_until([&] { return shared.prepared == options.peers; });

  const std::uint64_t count = options.bytes / sizeof(float);
  std::vector<float> send(count);
  std::vector<float> recv(options.in_place ? 0 : count);
  float* const into = options.in_place ? send.data() : recv.data();
  const float total = static_cast<float>(options.peers * (options.peers + 1) / 2);
  for (std::uint32_t round = 0; round < options.rounds; ++round) {
    for (std::uint64_t i = 0; i < count; ++i) send[i] = static_cast<float>(rank + 1) * static_cast<float>(i % 1000);
    ++shared.arrived[round];
    wait_until([&] { return shared.arrived[round] == options.peers; });
    const double cpu_begin = cpu_seconds();
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint32_t repeat = 0; repeat < options.repeats; ++repeat) {
      std::promise<void> over;
      engine->start({.send = send.data(), .send_count = count, .recv = into, .recv_count = count},
                    [&](pccl::OpId, const pccl::OpResult& result) {
                      if (result.error) ++shared.wrong;
                      over.set_value();
                    });
      over.get_future().wait();
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    shared.seconds[rank][round] = time.count() / options.repeats;
    shared.cpu_seconds[rank][round] = (cpu_seconds() - cpu_begin) / options.repeats;
    for (std::uint64_t i = 0; i < count; ++i) {
      if (into[i] == total * static_cast<float>(i % 1000)) continue;
      ++shared.wrong;
      break;
    }
  }
  engine->close();
  return 0;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--in-place") {
      options.in_place = true;
      continue;
    }
    if (name == "--transport" && i + 1 < argc) {
      options.transport = std::strcmp(argv[++i], "tcp") == 0 ? pccl::TransportMode::tcp : pccl::TransportMode::shm;
      continue;
    }
    const std::uint64_t value = i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0;
    if (name == "--peers" && value >= 1 && value <= peers_max) {
      options.peers = static_cast<std::uint32_t>(value);
    } else if (name == "--bytes" && value >= sizeof(float)) {
      options.bytes = value;
    } else if (name == "--rounds" && value >= 1 && value <= rounds_max) {
      options.rounds = static_cast<std::uint32_t>(value);
    } else if (name == "--repeats" && value >= 1 && value <= repeats_max) {
      options.repeats = static_cast<std::uint32_t>(value);
    } else if (name == "--connections" && value >= 1 && value <= connections_max) {
      options.connections = static_cast<std::uint32_t>(value);
    } else {
      std::fprintf(stderr,
                   "usage: all_reduce_bench [--peers N] [--bytes N] [--rounds N] [--connections N] [--in-place]\n"
                   "                        [--transport shm|tcp]\n");
      std::exit(2);
    }
  }
  if (options.in_place && options.repeats > 1) {
    std::fprintf(stderr, "all_reduce_bench: in place, the result would be the next repeat's input\n");
    std::exit(2);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  void* const memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  Shared& shared = *new (memory) Shared();
  for (std::uint32_t rank = 0; rank < options.peers; ++rank) {
    if (::fork() == 0) ::_exit(run_peer(shared, options, rank));
  }
  bool failed = false;
  for (std::uint32_t rank = 0; rank < options.peers; ++rank) {
    int status = 0;
    ::wait(&status);
    failed |= status != 0;
  }
  std::vector<double> slowest(options.rounds), cpu(options.rounds);
  for (std::uint32_t round = 0; round < options.rounds; ++round) {
    for (std::uint32_t rank = 0; rank < options.peers; ++rank) {
      slowest[round] = std::max(slowest[round], shared.seconds[rank][round]);
      cpu[round] += shared.cpu_seconds[rank][round];
    }
  }
  for (std::vector<double>* const values : {&slowest, &cpu}) {
    // The first round pays for page faults and for TCP's windows to open.
    if (values->size() > 1) values->erase(values->begin());
    std::sort(values->begin(), values->end());
  }
  const std::size_t middle = slowest.size() / 2;
  std::printf(
      "%u peers, %u connections, %llu bytes%s: min %.3f ms, median %.3f ms, processor min %.3f ms, median %.3f ms, "
      "sums %s\n",
      options.peers, options.connections, static_cast<unsigned long long>(options.bytes),
      options.in_place ? " in place" : "", slowest[0] * 1e3, slowest[middle] * 1e3, cpu[0] * 1e3, cpu[middle] * 1e3,
      failed || shared.wrong != 0 ? "WRONG" : "right");
  return failed || shared.wrong != 0 ? 1 : 0;
}
