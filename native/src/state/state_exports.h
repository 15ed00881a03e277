// The tensors that this peer shows to others, found by their content. Their bytes are hashed on the pool's threads,
// and read by StateServer until they are released. I/O thread only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/worker_pool.h"
#include "pccl/engine.h"
#include "state/state_image.h"
#include "state/state_shadow.h"
#include "state/state_wire.h"
#include "transport/event_loop.h"
#include "transport/lent_memory.h"

namespace pccl {

class StateExports {
 public:
  using Finished = std::function<void(OpId, const OpResult&)>;

  StateExports(EventLoop& loop, WorkerPool& pool, Finished finished)
      : loop_(loop), pool_(pool), finished_(std::move(finished)) {}

  void add(OpId id, std::vector<ExportTensor> tensors);
  // Nothing for an export that is unknown or still being hashed.
  std::optional<std::vector<Hash128>> hashes(OpId id) const;

  // Why there can't be a fetch for this export; nothing: there can.
  std::optional<std::string> refuse_fetch(OpId id, const std::vector<StateTarget>& targets) const;
  // What it collects is shown as well. Null: the system has no memory.
  std::shared_ptr<StateShadow> begin_fetch(OpId id, const std::vector<StateTarget>& targets);

  // What answers a question: pieces of memory that stay as they are until the export is released.
  struct Answer {
    OpId id = 0;
    std::vector<std::span<const std::uint8_t>> pieces = {};
    // For answers that lie nowhere.
    std::vector<std::uint8_t> own = {};
  };
  std::optional<Answer> answer(const state_wire::Request& request);
  void served(OpId id, std::uint64_t bytes);
  // Somebody has read these leaves from lent memory.
  void on_read(const state_wire::Request& request);
  // Somebody got other bytes of this leaf than its hash says.
  void on_stale(const state_wire::Request& request);
  // Empty: none was. Nothing: the export is unknown.
  std::optional<std::string> changed_tensor(OpId id) const;

  struct Released {
    std::uint64_t served_bytes = 0;
    std::shared_ptr<StateShadow> shadow;
    std::shared_future<void> unread;  // until then the memory is read
  };
  // Nothing for an export that is unknown.
  std::optional<Released> release(OpId id);
  // What a fetch that didn't come to its end has got is for the next one.
  void keep(std::shared_ptr<StateShadow> shadow) { kept_ = std::move(shadow); }

  // The pool lets go of what it is at soon.
  void stop_hashing();
  // Ends what hasn't been hashed. The pool must have ended.
  void fail_all(const Error& why);

 private:
  struct Export {
    std::shared_ptr<StateImage> image;
    std::shared_ptr<std::atomic<bool>> stop;
    std::shared_future<void> unread;
    EventLoop::Clock::time_point started;
    bool hashed = false;
    std::uint64_t served_bytes = 0;
    std::shared_ptr<StateShadow> shadow;
    std::unique_ptr<MemoryLoan> loan;
    std::string changed;
  };
  // A tensor that is shown: of the image, or of what is being fetched.
  struct Place {
    OpId id = 0;
    std::uint32_t tensor = 0;
    bool in_shadow = false;
  };
  using Content = std::pair<Hash128, std::uint64_t>;  // root and size

  void hashed(OpId id);
  void forget(OpId id);
  bool fill(const Place& place, const state_wire::Request& request, Answer& answer);

  EventLoop& loop_;
  WorkerPool& pool_;
  Finished finished_;
  std::map<OpId, Export> exports_;
  std::multimap<Content, Place> places_;
  std::shared_ptr<StateShadow> kept_;
};

}  // namespace pccl
