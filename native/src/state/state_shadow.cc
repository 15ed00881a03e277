#include "state/state_shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace pccl {
namespace {

constexpr std::uint64_t alignment = 64;
constexpr std::uintptr_t page_bytes = 4096;
// About what one copy is for.
constexpr std::size_t copy_bytes = 1024 * 1024;

// Where each of the image's tensors has its place, and at the end how much all of them need.
std::vector<std::uint64_t> offsets_of(const StateImage& image) {
  std::vector<std::uint64_t> offsets{0};
  for (const StateImage::Tensor& tensor : image.tensors) {
    offsets.push_back(offsets.back() + (tensor.bytes + alignment - 1) / alignment * alignment);
  }
  return offsets;
}

}  // namespace

std::shared_ptr<ShadowMemory> ShadowMemory::create(std::uint64_t bytes) {
  const std::size_t size = std::max<std::size_t>(bytes, 1);
  void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  return std::shared_ptr<ShadowMemory>(new ShadowMemory(static_cast<std::uint8_t*>(at), size));
}

ShadowMemory::~ShadowMemory() { ::munmap(memory_, bytes_); }

void ShadowMemory::expect(std::uint64_t offset, std::uint64_t bytes) const {
  const std::uint64_t begin = offset / page_bytes * page_bytes;
  ::madvise(memory_ + begin, offset + bytes - begin, MADV_HUGEPAGE);
}

void ShadowMemory::drop(std::uint64_t offset, std::uint64_t bytes) const {
  const std::uint64_t begin = (offset + page_bytes - 1) / page_bytes * page_bytes;
  const std::uint64_t end = (offset + bytes) / page_bytes * page_bytes;
  if (begin < end) ::madvise(memory_ + begin, end - begin, MADV_DONTNEED);
}

std::unique_ptr<StateShadow> StateShadow::create(std::shared_ptr<const StateImage> image,
                                                 const std::vector<StateTarget>& targets,
                                                 std::shared_ptr<StateShadow> kept) {
  std::unique_ptr<StateShadow> shadow(new StateShadow(std::move(image)));
  const std::vector<std::uint64_t> offsets = offsets_of(*shadow->image_);
  if (kept != nullptr && kept->same_layout(*shadow->image_)) {
    shadow->memory_ = kept->memory_;
    for (Tensor& tensor : kept->tensors_) {
      if (tensor.leaves.empty()) continue;
      shadow->kept_.emplace(tensor.index, Kept{std::move(tensor.leaves), std::move(tensor.states)});
    }
    for (auto& [index, of_tensor] : kept->kept_) shadow->kept_.try_emplace(index, std::move(of_tensor));
  } else {
    kept.reset();  // its memory goes before there is more
    shadow->memory_ = ShadowMemory::create(offsets.back());
    if (shadow->memory_ == nullptr) return nullptr;
  }
  for (const StateTarget& target : targets) {
    shadow->tensors_.push_back({.index = target.tensor, .root = target.root, .offset = offsets[target.tensor]});
  }
  shadow->unplanned_ = targets.size();
  return shadow;
}

bool StateShadow::same_layout(const StateImage& other) const {
  return std::equal(image_->tensors.begin(), image_->tensors.end(), other.tensors.begin(), other.tensors.end(),
                    [](const StateImage::Tensor& a, const StateImage::Tensor& b) {
                      return a.name == b.name && a.bytes == b.bytes;
                    });
}

const std::uint8_t* StateShadow::shown(const Tensor& tensor, std::uint64_t leaf) const {
  if (tensor.leaves.empty()) return nullptr;
  switch (tensor.states[leaf]) {
    case Leaf::missing:
      return nullptr;
    case Leaf::same:
      return own(tensor).leaf(leaf);
    case Leaf::fetched:
      return place(tensor, leaf);
  }
  return nullptr;
}

std::vector<LeafRange> StateShadow::plan(Tensor& tensor, std::vector<Hash128> leaves) {
  const StateImage::Tensor& mine = own(tensor);
  PCCL_CHECK(tensor.leaves.empty() && leaves.size() == mine.leaves.size());
  tensor.leaves = std::move(leaves);
  tensor.states.assign(tensor.leaves.size(), Leaf::missing);
  const auto found = kept_.find(tensor.index);
  const auto position = static_cast<std::uint32_t>(&tensor - tensors_.data());
  std::vector<LeafRange> missing;
  for (std::uint64_t i = 0; i < tensor.leaves.size(); ++i) {
    if (tensor.leaves[i] == mine.leaves[i]) {
      tensor.states[i] = Leaf::same;
    } else if (found != kept_.end() && found->second.states[i] == Leaf::fetched &&
               found->second.leaves[i] == tensor.leaves[i]) {
      tensor.states[i] = Leaf::fetched;
    } else {
      ++tensor.missing;
      if (!missing.empty() && missing.back().first + missing.back().count == i) {
        ++missing.back().count;
      } else {
        missing.push_back({position, i, 1});
      }
    }
  }
  if (found != kept_.end()) kept_.erase(found);
  if (tensor.missing > tensor.leaves.size() / 2) memory_->expect(tensor.offset, mine.bytes);
  missing_ += tensor.missing;
  --unplanned_;
  return missing;
}

std::vector<LeafRange> StateShadow::plan_single(Tensor& tensor) {
  const auto found = kept_.find(tensor.index);
  const bool here = found != kept_.end() && found->second.states[0] == Leaf::fetched &&
                    root_of(found->second.leaves) == tensor.root;
  // Its hash is known when it is here; until then it equals nothing.
  return plan(tensor, {here ? found->second.leaves[0] : Hash128{}});
}

bool StateShadow::matches(const Tensor& tensor, std::uint64_t leaf, const Hash128& hash) {
  return tensor.leaves.size() == 1 ? root_of({&hash, 1}) == tensor.root : tensor.leaves[leaf] == hash;
}

void StateShadow::verified(Tensor& tensor, std::uint64_t leaf, const Hash128& hash) {
  PCCL_CHECK(tensor.states[leaf] == Leaf::missing);
  tensor.states[leaf] = Leaf::fetched;
  tensor.leaves[leaf] = hash;
  --tensor.missing;
  --missing_;
}

std::vector<StateShadow::Copy> StateShadow::copies() const {
  std::vector<Copy> copies;
  for (const Tensor& tensor : tensors_) {
    const StateImage::Tensor& mine = own(tensor);
    for (std::uint64_t i = 0; i < tensor.states.size(); ++i) {
      if (tensor.states[i] != Leaf::fetched) continue;
      const std::size_t bytes = leaves_bytes(mine.bytes, i, 1);
      // Neighbours of one tensor; two tensors that lie side by side in memory don't in the shadow.
      const bool follows = i > 0 && tensor.states[i - 1] == Leaf::fetched && copies.back().bytes < copy_bytes;
      if (follows) {
        copies.back().bytes += bytes;
      } else {
        copies.push_back({mine.data + i * limits::state_leaf_bytes, place(tensor, i), bytes});
      }
    }
  }
  return copies;
}

}  // namespace pccl
