// All-reduce by Gloo's ring over TCP on loopback: f32 sum, in place, between PEERS processes. Gloo has no other
// transport between processes.
//
//   gloo_all_reduce PEERS BYTES
#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <filesystem>
#include <string>

#include "forked.h"

namespace {

void run_rank(peers::Ranks& ranks, int rank, int size, const std::string& store_path, std::size_t bytes) {
  gloo::transport::tcp::attr attr;
  attr.hostname = "127.0.0.1";
  auto device = gloo::transport::tcp::CreateDevice(attr);
  gloo::rendezvous::FileStore store(store_path);
  auto context = std::make_shared<gloo::rendezvous::Context>(rank, size);
  context->connectFullMesh(store, device);
  ranks.be(rank);
  std::vector<float> data(bytes / sizeof(float));
  std::uint32_t tag = 0;
  const auto reduce = [&] {
    gloo::AllreduceOptions options(context);
    options.setAlgorithm(gloo::detail::AllreduceOptionsImpl::RING);
    options.setOutput(data.data(), data.size());
    options.setReduceFunction(static_cast<void (*)(void*, const void*, const void*, std::size_t)>(&gloo::sum<float>));
    options.setTag(tag++);
    gloo::allreduce(options);
  };
  peers::fill(data.data(), data.size(), static_cast<std::uint32_t>(rank));
  reduce();
  peers::check_sum(data.data(), data.size(), static_cast<std::uint32_t>(size));
  std::fill(data.begin(), data.end(), 0.0f);
  peers::measure(rank, reduce, [&](double* values, std::size_t count) { ranks.max(values, count); });
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc == 3 ? std::atoi(argv[1]) : 0;
  const std::size_t bytes = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 0;
  if (size < 1 || bytes < sizeof(float)) {
    std::fprintf(stderr, "usage: %s PEERS BYTES\n", argv[0]);
    return 2;
  }
  char path[] = "/tmp/gloo-store-XXXXXX";
  if (::mkdtemp(path) == nullptr) return 1;
  peers::Ranks ranks(size);
  const int status = ranks.run([&](int rank) { run_rank(ranks, rank, size, path, bytes); });
  std::filesystem::remove_all(path);
  return status;
}
