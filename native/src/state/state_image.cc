#include "state/state_image.h"

#include <algorithm>
#include <utility>

namespace pccl {

StateImage::StateImage(std::vector<ExportTensor> of) {
  tensors.reserve(of.size());
  first_leaves.reserve(of.size());
  for (ExportTensor& tensor : of) {
    first_leaves.push_back(leaves);
    const std::uint64_t count = leaf_count(tensor.bytes);
    tensors.push_back({.name = std::move(tensor.name),
                       .data = static_cast<std::uint8_t*>(tensor.data),
                       .bytes = tensor.bytes,
                       .leaves = std::vector<Hash128>(count)});
    leaves += count;
  }
}

void StateImage::hash_leaves(std::uint64_t begin, std::uint64_t end) {
  // The last tensor that begins there or before; those without leaves come before it.
  auto at = std::upper_bound(first_leaves.begin(), first_leaves.end(), begin) - first_leaves.begin() - 1;
  for (std::uint64_t i = begin; i < end; ++at) {
    Tensor& tensor = tensors[static_cast<std::size_t>(at)];
    const std::uint64_t first = first_leaves[static_cast<std::size_t>(at)];
    for (; i < end && i - first < tensor.leaves.size(); ++i) {
      tensor.leaves[i - first] = xxh3_128(tensor.leaf(i - first), leaves_bytes(tensor.bytes, i - first, 1));
    }
  }
}

void StateImage::hash_roots() {
  for (Tensor& tensor : tensors) tensor.root = root_of(tensor.leaves);
}

}  // namespace pccl
