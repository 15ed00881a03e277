// The side of probes that is dialled: sends pings back, and then streams, or throws away what comes, until the other
// side has seen enough. It measures nothing itself.
#pragma once

#include <cstdint>
#include <list>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "transport/event_loop.h"

namespace pccl {

class ProbeServer {
 public:
  explicit ProbeServer(EventLoop& loop) : loop_(loop) {}

  bool full() const { return visitors_.size() >= limits::probe_visitors_max; }
  void add(UniqueFd fd);
  void drop_all() { visitors_.clear(); }

 private:
  struct Visitor final : EventLoop::Handler {
    Visitor(ProbeServer& of, UniqueFd connection);
    void on_ready(std::uint32_t events) override { server.on_ready(*this, events); }

    ProbeServer& server;
    std::list<Visitor>::iterator self;
    UniqueFd fd;
    EventLoop::Watch watch;
    EventLoop::Timer patience;
    enum class Phase : std::uint8_t { pings, takes, streams };
    Phase phase = Phase::pings;
  };

  void on_ready(Visitor& visitor, std::uint32_t events);
  // False: the connection is over.
  bool answer(Visitor& visitor);

  EventLoop& loop_;
  std::list<Visitor> visitors_;
};

}  // namespace pccl
