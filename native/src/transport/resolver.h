// Turns host names into addresses on a thread of its own, because a name server may take its time. Nobody ever waits
// for a name server, at close() neither: a look-up that is under way then ends later, on a thread that shares nothing
// with the engine but what Shared guards.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "transport/event_loop.h"
#include "transport/socket.h"

namespace pccl {

class Resolver {
 public:
  // Empty addresses: `error` says why.
  using Answer = std::function<void(std::vector<Address> addresses, std::string error)>;
  // While it lives the answer is wanted.
  using Ticket = std::shared_ptr<void>;

  // Throws std::system_error when there can't be a thread.
  explicit Resolver(EventLoop& loop);
  ~Resolver() { stop(); }
  Resolver(const Resolver&) = delete;

  // The answer comes on the loop's thread, later.
  Ticket resolve(const std::string& host, std::uint16_t port, Answer answer);

  // No answer comes any more, and the loop may go. Idempotent.
  void stop();

 private:
  struct Shared;

  static void run(const std::shared_ptr<Shared>& shared);

  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace pccl
