#include "state/state_exports.h"

#include <utility>

#include "hash/xxh3.h"

namespace pccl {

void StateExports::add(OpId id, std::vector<ExportTensor> tensors) {
  Export& added = exports_[id];
  added.job = std::make_shared<HashJob>();
  added.job->tensors = std::move(tensors);
  added.hashing_ended = added.job->ended.get_future().share();
  added.started = EventLoop::Clock::now();
  hasher_.post([this, id, job = added.job] {
    std::vector<Hash128> hashes;
    for (const ExportTensor& tensor : job->tensors) {
      const auto hash = xxh3_128(tensor.data, tensor.bytes, job->stop);
      if (!hash) break;
      hashes.push_back(*hash);
    }
    job->ended.set_value();
    loop_.post([this, id, hashes = std::move(hashes)] { hashed(id, hashes); });
  });
}

void StateExports::hashed(OpId id, std::vector<Hash128> hashes) {
  const auto found = exports_.find(id);
  // Released, or stopped, meanwhile: whoever did that has ended the call.
  if (found == exports_.end() || hashes.size() != found->second.job->tensors.size()) return;
  found->second.hashes = std::move(hashes);
  const std::chrono::duration<double> time = EventLoop::Clock::now() - found->second.started;
  finished_(id, {.error = {}, .seconds = time.count()});
}

std::optional<std::vector<Hash128>> StateExports::hashes(OpId id) const {
  const auto found = exports_.find(id);
  return found == exports_.end() ? std::nullopt : found->second.hashes;
}

std::optional<StateExports::Found> StateExports::find(const state_wire::Request& request) const {
  for (const auto& [id, exported] : exports_) {
    if (!exported.hashes) continue;
    for (std::size_t i = 0; i < exported.hashes->size(); ++i) {
      const ExportTensor& tensor = exported.job->tensors[i];
      if (tensor.name != request.name || tensor.bytes != request.bytes || (*exported.hashes)[i] != request.hash)
        continue;
      return Found{id, static_cast<const std::uint8_t*>(tensor.data)};
    }
  }
  return std::nullopt;
}

void StateExports::served(OpId id, std::size_t bytes) { exports_.at(id).served_bytes += bytes; }

std::optional<StateExports::Released> StateExports::release(OpId id) {
  const auto found = exports_.find(id);
  if (found == exports_.end()) return std::nullopt;
  const Export released = std::move(found->second);
  exports_.erase(found);
  released.job->stop = true;
  return Released{released.served_bytes, released.hashing_ended};
}

void StateExports::stop_hashing() {
  for (const auto& [id, exported] : exports_) exported.job->stop = true;
}

void StateExports::fail_all(const Error& why) {
  const auto exports = std::exchange(exports_, {});
  for (const auto& [id, exported] : exports) {
    if (exported.hashes) continue;
    finished_(id, {.error = Error{why.code, "export_state: " + why.message, why.peer}});
  }
}

}  // namespace pccl
