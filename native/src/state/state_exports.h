// The tensors that this peer shows to others, found by name and content. Their bytes are hashed on the hashing
// thread, and read by StateServer until they are released. I/O thread only.
#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/worker_thread.h"
#include "pccl/engine.h"
#include "state/state_wire.h"
#include "transport/event_loop.h"

namespace pccl {

class StateExports {
 public:
  using Finished = std::function<void(OpId, const OpResult&)>;

  StateExports(EventLoop& loop, WorkerThread& hasher, Finished finished)
      : loop_(loop), hasher_(hasher), finished_(std::move(finished)) {}

  void add(OpId id, std::vector<ExportTensor> tensors);
  // Nothing for an export that is unknown or still being hashed.
  std::optional<std::vector<Hash128>> hashes(OpId id) const;

  struct Found {
    OpId id = 0;
    const std::uint8_t* data = nullptr;
  };
  std::optional<Found> find(const state_wire::Request& request) const;
  void served(OpId id, std::size_t bytes);

  struct Released {
    std::uint64_t served_bytes = 0;
    std::shared_future<void> hashing_ended;  // until then the memory is read
  };
  // Nothing for an export that is unknown.
  std::optional<Released> release(OpId id);

  // The hashing thread lets go of what it is at soon.
  void stop_hashing();
  // Ends what hasn't been hashed. The hashing thread must have ended.
  void fail_all(const Error& why);

 private:
  struct HashJob {
    std::vector<ExportTensor> tensors;
    std::atomic<bool> stop = false;
    std::promise<void> ended;
  };
  struct Export {
    std::shared_ptr<HashJob> job;
    std::shared_future<void> hashing_ended;
    EventLoop::Clock::time_point started;
    std::optional<std::vector<Hash128>> hashes;
    std::uint64_t served_bytes = 0;
  };

  void hashed(OpId id, std::vector<Hash128> hashes);

  EventLoop& loop_;
  WorkerThread& hasher_;
  Finished finished_;
  std::map<OpId, Export> exports_;
};

}  // namespace pccl
