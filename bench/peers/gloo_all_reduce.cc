// The same measurement as bench/src/all-reduce.ts, made with Gloo's TCP transport: N processes on loopback,
// f32 sum, in place. Prints one line for each size: peers bytes median_ms min_ms.
//
//   g++ -O2 -std=c++17 gloo_all_reduce.cc -lgloo -o gloo_all_reduce      (Debian: libgloo-dev)
//   ./gloo_all_reduce 2 ring 4096 1048576 67108864
#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

void run_rank(int rank, int size, gloo::detail::AllreduceOptionsImpl::Algorithm algorithm, const std::string& store_path,
              const std::vector<std::size_t>& sizes) {
  gloo::transport::tcp::attr attr;
  attr.hostname = "127.0.0.1";
  auto device = gloo::transport::tcp::CreateDevice(attr);
  gloo::rendezvous::FileStore store(store_path);
  auto context = std::make_shared<gloo::rendezvous::Context>(rank, size);
  context->connectFullMesh(store, device);
  std::uint32_t tag = 0;
  for (std::size_t bytes : sizes) {
    std::vector<float> data(bytes / sizeof(float), static_cast<float>(rank + 1));
    auto reduce = [&] {
      gloo::AllreduceOptions options(context);
      options.setAlgorithm(algorithm);
      options.setOutput(data.data(), data.size());
      options.setReduceFunction(
          static_cast<void (*)(void*, const void*, const void*, std::size_t)>(&gloo::sum<float>));
      options.setTag(tag++);
      gloo::allreduce(options);
    };
    reduce();
    if (data.front() != size * (size + 1) / 2.0f || data.back() != data.front()) std::abort();
    std::fill(data.begin(), data.end(), 0.0f);
    const int iterations = bytes > (16u << 20) ? 31 : bytes > (256u << 10) ? 201 : 1001;
    std::vector<double> ms;
    for (int i = 0; i < iterations; i++) {
      const auto start = Clock::now();
      reduce();
      ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
    std::sort(ms.begin(), ms.end());
    if (rank == 0) std::printf("%d %zu %.3f %.3f\n", size, bytes, ms[ms.size() / 2], ms[0]);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s PEERS ring|bcube BYTES...\n", argv[0]);
    return 2;
  }
  const int size = std::atoi(argv[1]);
  const auto algorithm = std::string(argv[2]) == "bcube" ? gloo::detail::AllreduceOptionsImpl::BCUBE
                                                         : gloo::detail::AllreduceOptionsImpl::RING;
  std::vector<std::size_t> sizes;
  for (int i = 3; i < argc; i++) sizes.push_back(std::strtoull(argv[i], nullptr, 10));
  char path[] = "/tmp/gloo-store-XXXXXX";
  if (mkdtemp(path) == nullptr) return 1;
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; rank++) {
    const pid_t pid = fork();
    if (pid == 0) {
      run_rank(rank, size, algorithm, path, sizes);
      _exit(0);
    }
    children.push_back(pid);
  }
  int failed = 0;
  for (pid_t pid : children) {
    int status = 0;
    waitpid(pid, &status, 0);
    failed |= status;
  }
  std::filesystem::remove_all(path);
  return failed == 0 ? 0 : 1;
}
