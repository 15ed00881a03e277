// How fast the kernels of reductions, and those that quantize f32, are on one thread, beside memcpy: GB/s of bytes read
// and written, for those that quantize of f32 alone; one column for each version that this CPU can run. 512 KiB is what
// an all-reduce combines at a time; 64 MiB shows the memory.
//
//   kernels_bench [--bytes 524288] [--last]      --last: the last contribution, for which avg divides
#include <hwy/highway.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/quantization.h"
#include "quantize/layout.h"
#include "quantize/quantize.h"
#include "reduce/kernels.h"

namespace {

constexpr int rounds = 20;
constexpr double seconds_per_round = 0.001;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Seconds of one call in the best round: whatever else the machine does only adds to the others.
template <typename F>
double measure(F call) {
  call();
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    int calls = 0;
    do {
      call();
      ++calls;
    } while (seconds_since(begin) < seconds_per_round);
    best = std::min(best, seconds_since(begin) / calls);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t bytes = 512 * 1024;
  bool last = false;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--last") {
      last = true;
    } else if (name == "--bytes" && i + 1 < argc && std::strtoull(argv[i + 1], nullptr, 10) >= 64) {
      bytes = std::strtoull(argv[++i], nullptr, 10) / 64 * 64;
    } else {
      std::fprintf(stderr, "usage: kernels_bench [--bytes N] [--last]\n");
      return 2;
    }
  }
  // In every format of floating point a number whose square is an ordinary one too.
  std::vector<std::uint8_t> local(bytes, 0x3f), incoming(bytes, 0x3e), into(bytes);

  const double copy = measure([&] { std::memcpy(into.data(), local.data(), bytes); });
  std::printf("%zu bytes; memcpy %.1f GB/s\n%-12s", bytes, 2e-9 * static_cast<double>(bytes) / copy, "");
  const std::vector<std::int64_t> targets = hwy::SupportedAndGeneratedTargets();
  for (const std::int64_t target : targets) std::printf("%8s", hwy::TargetName(target));
  for (std::uint8_t number = 0; pccl::is_dtype(number); ++number) {
    for (std::uint8_t op_number = 0; pccl::is_reduce_op(op_number); ++op_number) {
      const auto dtype = static_cast<pccl::DType>(number);
      const auto op = static_cast<pccl::ReduceOp>(op_number);
      std::printf("\n%-6s%-6s", pccl::dtype_name(dtype), pccl::reduce_op_name(op));
      for (const std::int64_t target : targets) {
        hwy::SetSupportedTargetsForTest(target);
        const std::size_t count = bytes / pccl::element_bytes(dtype);
        const double time = measure([&] {
          if (last) {
            pccl::combine_last(dtype, op, into.data(), local.data(), incoming.data(), count, 3);
          } else {
            pccl::combine(dtype, op, into.data(), local.data(), incoming.data(), count);
          }
        });
        std::printf("%8.1f", 3e-9 * static_cast<double>(bytes) / time);
      }
    }
  }
  std::printf("\n");
  const std::size_t count = bytes / sizeof(float);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i * 2654435761u % 1000) - 500;
  for (std::uint8_t number = 1; pccl::is_quantized_format(number); ++number) {
    for (const auto rounding : {pccl::QuantizationRounding::nearest, pccl::QuantizationRounding::stochastic}) {
      const pccl::Quantization quantization{.format = static_cast<pccl::QuantizedFormat>(number), .rounding = rounding};
      std::vector<std::uint8_t> codes(pccl::quantized_bytes(quantization, count));
      const auto row = [&](const char* name, const auto& call) {
        std::printf("%-6s%-12s", pccl::quantized_format_name(quantization.format), name);
        for (const std::int64_t target : targets) {
          hwy::SetSupportedTargetsForTest(target);
          std::printf("%8.1f", 1e-9 * static_cast<double>(bytes) / measure(call));
        }
        std::printf("\n");
      };
      const bool nearest = rounding == pccl::QuantizationRounding::nearest;
      row(nearest ? "nearest" : "stochastic", [&] { pccl::quantize(quantization, 0, 0, values, codes.data()); });
      if (nearest) row("back", [&] { static_cast<void>(pccl::dequantize(quantization, codes, values)); });
    }
  }
  return 0;
}
