// Tokens through an expert from where they lie and to where their results go, so that no array holds a row for each
// copy but that of the results: blocks of rows are gathered, computed (ffn/expert_pass.h) and put in their places.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "moe/ffn/expert_pass.h"

namespace pccl::moe {

struct RoutedWorkspace {
  ExpertWorkspace expert;
  gemm::AlignedArray<std::byte> x;
  gemm::AlignedArray<std::byte> y;
  gemm::AlignedArray<std::byte> y_gradient;
  gemm::AlignedArray<float> sums;
};

struct RoutedForward {
  ExpertShape shape;
  const std::byte* packed = nullptr;
  std::span<const std::uint32_t> rows;     // of x, one per copy
  std::span<const std::uint32_t> results;  // of y, likewise
  const std::byte* x = nullptr;
  std::byte* y = nullptr;
  std::byte* preactivations = nullptr;  // [copies][2 · inner], or null
};
void run_routed_forward(const RoutedForward& pass, RoutedWorkspace& workspace, const std::atomic<bool>& stopped);

struct RoutedBackward {
  ExpertShape shape;
  const std::byte* packed = nullptr;
  std::uint64_t first_position = 0;
  std::span<const std::uint32_t> rows;     // of x and the output's gradient
  std::span<const std::uint32_t> results;  // of x_gradient
  std::span<const float> gates;            // one per copy: the gradient by y is the gate times the output's gradient
  const std::byte* x = nullptr;
  const std::byte* preactivations = nullptr;
  const std::byte* output_gradient = nullptr;
  std::byte* x_gradient = nullptr;
  std::vector<float*> gradients;  // as expert_tensors; the pass adds to them
};
void run_routed_backward(const RoutedBackward& pass, RoutedWorkspace& workspace, const std::atomic<bool>& stopped);

}  // namespace pccl::moe
