// Fetches tensors from one peer that exports them, straight into the caller's memory, and verifies them on the
// hashing thread while the next ones arrive. After a failure the memory holds anything. I/O thread only.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "base/worker_thread.h"
#include "pccl/engine.h"
#include "state/progress_watch.h"
#include "state/state_wire.h"
#include "transport/dial.h"
#include "transport/event_loop.h"

namespace pccl {

class StateFetch final : EventLoop::Handler {
 public:
  struct Request {
    OpId id = 0;
    Member source;
    std::vector<FetchTensor> tensors;
    Hello hello;
  };
  // Called once, when nothing refers to the memory any more, as the last thing: it may destroy the fetch.
  using Finished = std::function<void(OpId, const OpResult&)>;

  StateFetch(EventLoop& loop, Resolver& resolver, WorkerThread& hasher, Request request, Finished finished);
  StateFetch(const StateFetch&) = delete;

  // The hashing thread lets go of this fetch's memory soon.
  void stop_hashing() { *stop_hashing_ = true; }
  // The hashing thread must have ended.
  void fail_now(const Error& why);

 private:
  void on_ready(std::uint32_t events) override;
  void connected(UniqueFd fd);
  void send_requests();
  void receive();
  bool receive_once();
  void reply_arrived();
  void tensor_arrived();
  void verified(std::size_t index, const std::optional<Hash128>& hash);
  void fail(const std::string& reason);
  void finish_if_idle();
  const FetchTensor& current() const { return request_.tensors[current_]; }

  EventLoop& loop_;
  WorkerThread& hasher_;
  const Request request_;
  Finished finished_;
  const EventLoop::Clock::time_point started_;
  std::shared_ptr<std::atomic<bool>> stop_hashing_ = std::make_shared<std::atomic<bool>>(false);
  // Results of the hashing thread find this expired when the fetch is gone.
  std::shared_ptr<StateFetch*> alive_;

  std::optional<Dial> dial_;
  std::optional<ProgressWatch> progress_;
  UniqueFd fd_;
  EventLoop::Watch watch_;
  std::vector<std::uint8_t> outgoing_;
  std::size_t outgoing_sent_ = 0;

  std::size_t current_ = 0;
  std::array<std::uint8_t, state_wire::reply_bytes> reply_;
  std::size_t reply_got_ = 0;
  std::uint64_t tensor_got_ = 0;
  std::size_t hashing_ = 0;  // tensors at the hashing thread
  std::uint64_t rx_bytes_ = 0;
  std::uint64_t tx_bytes_ = 0;
  std::optional<Error> error_;
};

}  // namespace pccl
