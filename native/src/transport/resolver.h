// Turns host names into addresses on a thread of its own, because a name server may take its time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/worker_thread.h"
#include "transport/event_loop.h"
#include "transport/socket.h"

namespace pccl {

class Resolver {
 public:
  // Empty addresses: `error` says why.
  using Answer = std::function<void(std::vector<Address> addresses, std::string error)>;
  // While it lives the answer is wanted.
  using Ticket = std::shared_ptr<void>;

  explicit Resolver(EventLoop& loop) : loop_(loop) {}

  // The answer comes on the loop's thread, later.
  Ticket resolve(const std::string& host, std::uint16_t port, Answer answer);

  // Waits for the look-up that is under way.
  void stop() { thread_.stop(); }

 private:
  EventLoop& loop_;
  WorkerThread thread_;
};

}  // namespace pccl
