#include "state/state_exports.h"

#include <chrono>
#include <iterator>

#include "base/parallel_for.h"
#include "hash/xxh3.h"

namespace pccl {
namespace {

using state_wire::Kind;
using state_wire::Request;

std::span<const std::uint8_t> bytes_of(const std::vector<Hash128>& hashes, const Request& request) {
  return {hashes[request.first].data(), request.count * sizeof(Hash128)};
}

}  // namespace

void StateExports::add(OpId id, std::vector<ExportTensor> tensors) {
  Export& added = exports_[id];
  added.image = std::make_shared<StateImage>(std::move(tensors));
  added.stop = std::make_shared<std::atomic<bool>>(false);
  added.started = EventLoop::Clock::now();
  const std::shared_ptr<StateImage> image = added.image;
  added.unread = parallel_for(pool_,
                              {.count = image->leaves,
                               .batch = limits::hashing_batch_leaves,
                               .body = [image](std::uint64_t begin, std::uint64_t end) { image->hash_leaves(begin, end); },
                               .done =
                                   [this, id, image] {
                                     image->hash_roots();
                                     loop_.post([this, id] { hashed(id); });
                                   }},
                              added.stop);
}

void StateExports::hashed(OpId id) {
  const auto found = exports_.find(id);
  // Released meanwhile: whoever did that has ended the call.
  if (found == exports_.end()) return;
  Export& exported = found->second;
  exported.hashed = true;
  const std::vector<StateImage::Tensor>& tensors = exported.image->tensors;
  for (std::uint32_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].bytes > 0) places_.emplace(Content{tensors[i].root, tensors[i].bytes}, Place{id, i});
  }
  const std::chrono::duration<double> time = EventLoop::Clock::now() - exported.started;
  finished_(id, {.error = {}, .seconds = time.count()});
}

std::optional<std::vector<Hash128>> StateExports::hashes(OpId id) const {
  const auto found = exports_.find(id);
  if (found == exports_.end() || !found->second.hashed) return std::nullopt;
  std::vector<Hash128> roots;
  for (const StateImage::Tensor& tensor : found->second.image->tensors) roots.push_back(tensor.root);
  return roots;
}

std::optional<std::string> StateExports::refuse_fetch(OpId id, const std::vector<StateTarget>& targets) const {
  const auto found = exports_.find(id);
  const std::string name = "export " + std::to_string(id);
  if (found == exports_.end() || !found->second.hashed) return name + " is unknown, or its hashing hasn't ended";
  const Export& exported = found->second;
  if (exported.shadow != nullptr) return name + " has had a fetch";
  const std::vector<StateImage::Tensor>& tensors = exported.image->tensors;
  std::vector<bool> seen(tensors.size());
  for (const auto& [tensor, root] : targets) {
    if (tensor >= seen.size() || seen[tensor] || tensors[tensor].bytes == 0) {
      return name + " has no tensor " + std::to_string(tensor) + ", or nothing of it is to be fetched";
    }
    seen[tensor] = true;
  }
  return std::nullopt;
}

std::shared_ptr<StateShadow> StateExports::begin_fetch(OpId id, const std::vector<StateTarget>& targets) {
  Export& exported = exports_.at(id);
  exported.shadow = StateShadow::create(exported.image, targets, std::exchange(kept_, nullptr));
  if (exported.shadow == nullptr) return nullptr;
  for (std::uint32_t i = 0; i < targets.size(); ++i) {
    const std::uint64_t bytes = exported.image->tensors[targets[i].tensor].bytes;
    places_.emplace(Content{targets[i].root, bytes}, Place{id, i, true});
  }
  return exported.shadow;
}

std::optional<StateExports::Answer> StateExports::answer(const Request& request) {
  const auto [begin, end] = places_.equal_range(Content{request.root, request.bytes});
  // One that has it all comes first: it was exported before anything could be fetched for it.
  for (auto place = begin; place != end; ++place) {
    Answer answer{.id = place->second.id};
    if (fill(place->second, request, answer)) return answer;
  }
  return std::nullopt;
}

bool StateExports::fill(const Place& place, const Request& request, Answer& answer) {
  Export& exported = exports_.at(place.id);
  const std::uint64_t end = request.first + request.count;
  if (!place.in_shadow) {
    const StateImage::Tensor& tensor = exported.image->tensors[place.tensor];
    switch (request.kind) {
      case Kind::leaves:
        answer.pieces.push_back(bytes_of(tensor.leaves, request));
        return true;
      case Kind::data:
        answer.pieces.push_back({tensor.leaf(request.first), request.answer_bytes()});
        return true;
      case Kind::have:
        answer.own.assign(request.answer_bytes(), 0xff);
        return true;
      case Kind::lend: {
        if (exported.loan == nullptr) exported.loan = std::make_unique<MemoryLoan>();
        const LentMemory lent = exported.loan->describe(tensor.data, nullptr);
        answer.own.resize(state_wire::lend_bytes);
        store_le(answer.own.data(), lent.send);
        store_le(answer.own.data() + 8, lent.word);
        store_le(answer.own.data() + 16, lent.token);
        return true;
      }
      case Kind::stale:
      case Kind::read:
        return false;
    }
  }
  const StateShadow& shadow = *exported.shadow;
  const StateShadow::Tensor& tensor = shadow.tensors()[place.tensor];
  switch (request.kind) {
    case Kind::leaves:
      // The hash of a single leaf is known when the leaf is.
      if (tensor.leaves.empty() || (tensor.leaves.size() == 1 && tensor.missing > 0)) return false;
      answer.pieces.push_back(bytes_of(tensor.leaves, request));
      return true;
    case Kind::data:
      for (std::uint64_t leaf = request.first; leaf < end; ++leaf) {
        const std::uint8_t* const at = shadow.shown(tensor, leaf);
        if (at == nullptr) return false;
        answer.pieces.push_back({at, leaves_bytes(request.bytes, leaf, 1)});
      }
      return true;
    case Kind::have:
      answer.own.assign(request.answer_bytes(), 0);
      for (std::uint64_t leaf = request.first; leaf < end; ++leaf) {
        if (shadow.shown(tensor, leaf) == nullptr) continue;
        std::uint8_t& bits = answer.own[(leaf - request.first) / 8];
        bits = static_cast<std::uint8_t>(bits | 1u << ((leaf - request.first) % 8));
      }
      return true;
    case Kind::lend:
    case Kind::stale:
    case Kind::read:
      return false;
  }
  return false;
}

void StateExports::served(OpId id, std::uint64_t bytes) {
  const auto found = exports_.find(id);
  if (found != exports_.end()) found->second.served_bytes += bytes;
}

void StateExports::on_read(const Request& request) {
  const auto place = places_.find(Content{request.root, request.bytes});
  if (place != places_.end()) served(place->second.id, leaves_bytes(request.bytes, request.first, request.count));
}

void StateExports::on_stale(const Request& request) {
  const auto [begin, end] = places_.equal_range(Content{request.root, request.bytes});
  for (auto place = begin; place != end; ++place) {
    if (place->second.in_shadow) continue;
    Export& exported = exports_.at(place->second.id);
    const StateImage::Tensor& tensor = exported.image->tensors[place->second.tensor];
    const Hash128 now = xxh3_128(tensor.leaf(request.first), leaves_bytes(tensor.bytes, request.first, 1));
    if (now != tensor.leaves[request.first]) exported.changed = tensor.name;
  }
}

std::optional<std::string> StateExports::changed_tensor(OpId id) const {
  const auto found = exports_.find(id);
  return found == exports_.end() ? std::nullopt : std::optional(found->second.changed);
}

std::optional<StateExports::Released> StateExports::release(OpId id) {
  const auto found = exports_.find(id);
  if (found == exports_.end()) return std::nullopt;
  const Export& exported = found->second;
  *exported.stop = true;
  Released released{exported.served_bytes, exported.shadow, exported.unread};
  forget(id);
  return released;
}

void StateExports::forget(OpId id) {
  for (auto place = places_.begin(); place != places_.end();) {
    place = place->second.id == id ? places_.erase(place) : std::next(place);
  }
  exports_.erase(id);
}

void StateExports::stop_hashing() {
  for (const auto& [id, exported] : exports_) *exported.stop = true;
}

void StateExports::fail_all(const Error& why) {
  const auto exports = std::exchange(exports_, {});
  places_.clear();
  kept_.reset();
  for (const auto& [id, exported] : exports) {
    if (exported.hashed) continue;
    finished_(id, {.error = Error{why.code, "export_state: " + why.message, why.peer}});
  }
}

}  // namespace pccl
