// The tensors of an export with their hash trees.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hash/hash_tree.h"
#include "pccl/engine.h"

namespace pccl {

struct StateImage {
  struct Tensor {
    std::string name;
    std::uint8_t* data = nullptr;
    std::uint64_t bytes = 0;
    Hash128 root{};
    std::vector<Hash128> leaves{};

    const std::uint8_t* leaf(std::uint64_t index) const { return data + index * limits::state_leaf_bytes; }
  };
  std::vector<Tensor> tensors;
  // For each tensor how many leaves those before it have.
  std::vector<std::uint64_t> first_leaves;
  std::uint64_t leaves = 0;

  explicit StateImage(std::vector<ExportTensor> of);
  // Hashes these leaves, counted over all tensors.
  void hash_leaves(std::uint64_t begin, std::uint64_t end);
  // When all leaves are hashed.
  void hash_roots();
};

}  // namespace pccl
