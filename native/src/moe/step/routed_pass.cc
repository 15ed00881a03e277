#include "moe/step/routed_pass.h"

#include <algorithm>
#include <cstring>

#include "gemm/multiply.h"
#include "moe/step/rows.h"

namespace pccl::moe {

namespace {

// As many as run_forward computes at once.
constexpr std::size_t forward_block = 384;

void scatter(const std::byte* from, std::span<const std::uint32_t> places, std::size_t row_bytes, std::byte* into) {
  for (std::size_t i = 0; i < places.size(); ++i) {
    std::memcpy(into + places[i] * row_bytes, from + i * row_bytes, row_bytes);
  }
}

}  // namespace

void run_routed_forward(const RoutedForward& pass, RoutedWorkspace& workspace, const std::atomic<bool>& stopped) {
  const std::size_t element = element_bytes(pass.shape.dtype);
  const std::size_t row_bytes = pass.shape.hidden * element;
  const std::size_t copies = pass.rows.size();
  const std::size_t block_max = std::min(copies, forward_block);
  std::byte* const x = workspace.x.reserve(block_max * row_bytes);
  std::byte* const y = workspace.y.reserve(block_max * row_bytes);
  for (std::size_t begin = 0; begin < copies && !stopped; begin += forward_block) {
    const std::size_t count = std::min(forward_block, copies - begin);
    gather_rows(pass.x, pass.rows.subspan(begin, count), row_bytes, x);
    std::byte* const preactivations = pass.preactivations == nullptr
                                          ? nullptr
                                          : pass.preactivations + begin * 2 * pass.shape.inner * element;
    run_forward({pass.shape, pass.packed, count, x, y, preactivations}, workspace.expert, stopped);
    scatter(y, pass.results.subspan(begin, count), row_bytes, pass.y);
  }
}

void run_routed_backward(const RoutedBackward& pass, RoutedWorkspace& workspace, const std::atomic<bool>& stopped) {
  const std::size_t element = element_bytes(pass.shape.dtype);
  const std::size_t row_bytes = pass.shape.hidden * element;
  const std::size_t copies = pass.rows.size();
  const std::size_t block_max = std::min(copies, gemm::gradient_block);
  std::byte* const x = workspace.x.reserve(block_max * row_bytes);
  std::byte* const x_gradient = workspace.y.reserve(block_max * row_bytes);
  std::byte* const y_gradient = workspace.y_gradient.reserve(block_max * row_bytes);
  for (std::size_t begin = 0; begin < copies && !stopped;) {
    // A block of the gradients' sums at a time, as run_backward does.
    const auto place = static_cast<std::size_t>((pass.first_position + begin) % gemm::gradient_block);
    const std::size_t count = std::min(gemm::gradient_block - place, copies - begin);
    const auto rows = pass.rows.subspan(begin, count);
    gather_rows(pass.x, rows, row_bytes, x);
    gather_scaled_rows(pass.shape.dtype, pass.output_gradient, rows, pass.gates.subspan(begin, count),
                       pass.shape.hidden, workspace.sums, y_gradient);
    run_backward({pass.shape, pass.packed, count, pass.first_position + begin, x,
                  pass.preactivations + begin * 2 * pass.shape.inner * element, y_gradient, x_gradient, pass.gradients},
                 workspace.expert, stopped);
    scatter(x_gradient, pass.results.subspan(begin, count), row_bytes, pass.x_gradient);
    begin += count;
  }
}

}  // namespace pccl::moe
