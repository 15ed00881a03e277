// Tokens through an expert, forward and backward. A token's results have the same bits whatever tokens it is with, in
// whatever number and order; those of weights are sums over tokens by their global positions (gemm/multiply.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "moe/ffn/expert.h"

namespace pccl::moe {

// What passes compute in, in blocks of tokens, so that its size doesn't depend on their number. For one thread.
struct ExpertWorkspace {
  gemm::Workspace products;
  gemm::AlignedArray<float> sums;
  gemm::AlignedArray<std::byte> preactivations;
  gemm::AlignedArray<std::byte> activated;

  std::size_t bytes() const { return products.bytes() + sums.bytes() + preactivations.bytes() + activated.bytes(); }
};

// Once `stopped` is set, both end before the next block of tokens. They throw std::bad_alloc. Either way there are
// results for some tokens only.

struct ForwardPass {
  ExpertShape shape;
  const std::byte* packed = nullptr;
  std::size_t tokens = 0;
  const void* x = nullptr;         // [tokens][hidden]
  void* y = nullptr;               // [tokens][hidden]
  void* preactivations = nullptr;  // [tokens][2 · inner], kept for the backward pass; or null
};
void run_forward(const ForwardPass& pass, ExpertWorkspace& workspace, const std::atomic<bool>& stopped);

struct BackwardPass {
  ExpertShape shape;
  const std::byte* packed = nullptr;  // for training
  std::size_t tokens = 0;
  std::uint64_t first_position = 0;  // of the first token among all tokens of this expert
  const void* x = nullptr;
  const void* preactivations = nullptr;
  const void* y_gradient = nullptr;  // [tokens][hidden]
  void* x_gradient = nullptr;        // [tokens][hidden]
  std::vector<float*> gradients;     // as expert_tensors; the pass adds to them
};
void run_backward(const BackwardPass& pass, ExpertWorkspace& workspace, const std::atomic<bool>& stopped);

}  // namespace pccl::moe
