// How fast matrix products with packed weights are on one thread: Gflop/s, and beside oneDNN's matmul with weights in
// the layout of its choice, if it was there when this was built. The two take turns; the ratio is the median over
// rounds of oneDNN's time to ours. Time is the thread's on a CPU, so that other programs count less.
//
//   products_bench [--rounds 31] [--sizes 1024,2880] [--rows 1,16,64,256,1024]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "gemm/multiply.h"
#include "gemm/packing.h"
#include "one_dnn.h"

namespace {

using pccl::DType;

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double seconds_of(const auto& call, int calls) {
  const double begin = thread_seconds();
  for (int i = 0; i < calls; ++i) call();
  return (thread_seconds() - begin) / calls;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Numbers of both signs between 0.0078 and 1, in either format: the upper halves of such f32 are such bf16.
std::vector<std::uint32_t> random_numbers(std::size_t cells, std::mt19937& random) {
  std::vector<std::uint32_t> numbers(cells);
  for (std::uint32_t& number : numbers) number = 0x3c003c00u + (random() & 0x83ff83ffu);
  return numbers;
}

void measure(DType dtype, std::size_t size, std::size_t rows, int rounds) {
  std::mt19937 random(1);
  const std::size_t bytes = pccl::element_bytes(dtype);
  const std::vector<std::uint32_t> left = random_numbers(rows * size * bytes / 4, random);
  const std::vector<std::uint32_t> right = random_numbers(size * size * bytes / 4, random);
  pccl::gemm::AlignedArray<pccl::gemm::Cell> packed;
  const std::size_t cells = pccl::gemm::packed_cells(dtype, size, size);
  pccl::gemm::pack({dtype, right.data(), size, size, 1, size}, packed.reserve(cells));
  pccl::gemm::AlignedArray<float> into;
  float* const results = into.reserve(rows * size);
  pccl::gemm::Workspace workspace;
  const auto own = [&] {
    pccl::gemm::multiply({dtype, left.data(), rows, size, size, 1}, {packed.reserve(cells), size, size}, nullptr,
                         {results, size}, workspace);
  };
  const double flops = 2.0 * static_cast<double>(rows * size * size);
  const int calls = std::clamp(static_cast<int>(2e9 / flops), 1, 100);
  std::printf("%-5s %5zu x %zu^2  ", pccl::dtype_name(dtype), rows, size);
#ifdef PCCL_ONE_DNN
  pccl::OneDnnProduct other(dtype, rows, size, size, left.data(), right.data());
  std::vector<double> own_times, other_times, ratios;
  for (int round = 0; round <= rounds; ++round) {
    const double other_time = seconds_of([&] { other.run(); }, calls);
    const double own_time = seconds_of(own, calls);
    if (round == 0) continue;
    own_times.push_back(own_time);
    other_times.push_back(other_time);
    ratios.push_back(other_time / own_time);
  }
  std::printf("%7.1f Gflop/s  oneDNN %7.1f  ratio %.3f\n", flops / median(own_times) * 1e-9,
              flops / median(other_times) * 1e-9, median(ratios));
#else
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) times.push_back(seconds_of(own, calls));
  std::printf("%7.1f Gflop/s\n", flops / median(times) * 1e-9);
#endif
  std::fflush(stdout);
}

std::vector<std::size_t> read_list(const std::string& text) {
  std::vector<std::size_t> list;
  for (std::size_t begin = 0; begin < text.size(); begin = std::min(text.find(',', begin), text.size() - 1) + 1) {
    list.push_back(std::strtoull(text.c_str() + begin, nullptr, 10));
  }
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 31;
  std::vector<std::size_t> sizes = {1024, 2880};
  std::vector<std::size_t> rows = {1, 16, 64, 256, 1024};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--rounds") rounds = std::max(1, std::atoi(argv[i + 1]));
    if (name == "--sizes") sizes = read_list(argv[i + 1]);
    if (name == "--rows") rows = read_list(argv[i + 1]);
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::size_t size : sizes) {
      for (const std::size_t count : rows) {
        if (size % 2 == 0 && size > 0 && count > 0) measure(dtype, size, count, rounds);
      }
    }
  }
  return 0;
}
