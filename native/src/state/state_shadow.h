// What a fetch collects: the leaves of tensors that differ from this peer's own, each in a place of its own beside
// the tensor's memory, which nobody writes meanwhile. Memory is taken up only by leaves that came. It also knows
// which leaves can be shown to others. I/O thread only, but for the memory itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "state/leaf_queue.h"
#include "state/state_image.h"

namespace pccl {

// Pages of no content, taken up as they are written.
class ShadowMemory {
 public:
  // Null: the system has none.
  static std::shared_ptr<ShadowMemory> create(std::uint64_t bytes);
  ~ShadowMemory();
  ShadowMemory(const ShadowMemory&) = delete;

  std::uint8_t* at(std::uint64_t offset) const { return memory_ + offset; }
  // Much of this range will be written: huge pages, where the system has them.
  void expect(std::uint64_t offset, std::uint64_t bytes) const;
  // The range's content isn't needed any more.
  void drop(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  ShadowMemory(std::uint8_t* memory, std::size_t bytes) : memory_(memory), bytes_(bytes) {}

  std::uint8_t* const memory_;
  const std::size_t bytes_;
};

class StateShadow {
 public:
  enum class Leaf : std::uint8_t {
    missing,
    same,     // as the own tensor has it
    fetched,  // in the shadow, and verified
  };
  struct Tensor {
    std::uint32_t index = 0;  // in the image
    Hash128 root{};
    std::uint64_t offset = 0;         // in the memory
    std::vector<Hash128> leaves{};    // empty: not known yet
    std::vector<Leaf> states{};
    std::uint64_t missing = 0;
  };

  // Null: the system has no memory. `kept` is what an earlier fetch for the same tensors has left behind, or null.
  static std::unique_ptr<StateShadow> create(std::shared_ptr<const StateImage> image,
                                             const std::vector<StateTarget>& targets,
                                             std::shared_ptr<StateShadow> kept);

  const StateImage& image() const { return *image_; }
  const StateImage::Tensor& own(const Tensor& tensor) const { return image_->tensors[tensor.index]; }
  std::vector<Tensor>& tensors() { return tensors_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const std::shared_ptr<ShadowMemory>& memory() const { return memory_; }

  // Where a leaf is collected.
  std::uint8_t* place(const Tensor& tensor, std::uint64_t leaf) const {
    return memory_->at(tensor.offset + leaf * limits::state_leaf_bytes);
  }
  // Null: it is missing.
  const std::uint8_t* shown(const Tensor& tensor, std::uint64_t leaf) const;

  // The tree is known. Says which leaves are missing; ranges name tensors by their place in tensors().
  std::vector<LeafRange> plan(Tensor& tensor, std::vector<Hash128> leaves);
  // A tensor of one leaf needs no tree: if its root differs, so does its leaf.
  std::vector<LeafRange> plan_single(Tensor& tensor);
  // Whether a leaf's bytes are the right ones.
  static bool matches(const Tensor& tensor, std::uint64_t leaf, const Hash128& hash);
  // The leaf is in its place, and has this hash.
  void verified(Tensor& tensor, std::uint64_t leaf, const Hash128& hash);

  // What makes the own tensors equal to the targets, when nothing is missing: pieces of bounded size.
  struct Copy {
    std::uint8_t* to = nullptr;
    const std::uint8_t* from = nullptr;
    std::size_t bytes = 0;
  };
  std::vector<Copy> copies() const;

  std::uint64_t missing() const { return missing_; }
  // Tensors whose tree isn't known.
  std::size_t unplanned() const { return unplanned_; }

 private:
  // What is left of an earlier fetch for one tensor.
  struct Kept {
    std::vector<Hash128> leaves;
    std::vector<Leaf> states;
  };

  explicit StateShadow(std::shared_ptr<const StateImage> image) : image_(std::move(image)) {}
  bool same_layout(const StateImage& other) const;

  std::shared_ptr<const StateImage> image_;
  std::shared_ptr<ShadowMemory> memory_;
  std::vector<Tensor> tensors_;
  std::map<std::uint32_t, Kept> kept_;  // by index in the image
  std::uint64_t missing_ = 0;
  std::size_t unplanned_ = 0;
};

}  // namespace pccl
