// Measures the path to another peer, or from it: over connections of its own, as many as a link has, since a link's
// would mix with the ops on it, and not every peer has one to every other. Round trips come first, while the path is
// quiet; then the one side streams until the rate has settled or the time is over. What went out is counted by the
// system's acknowledgements, so that the other side needn't report. The way back is left alone: in a ring it carries
// nothing but acknowledgements, and where it is slow, a stream there would keep these waiting.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pccl/engine.h"
#include "probe/rate_meter.h"
#include "transport/dial.h"
#include "transport/event_loop.h"

namespace pccl {

class PathProbe {
 public:
  struct Request {
    Member target;
    ProbeDirection direction = ProbeDirection::send;
    Hello hello;
    std::uint32_t connections = 1;
    std::string congestion_control = {};  // empty: the system's
  };
  // Called once, as the last thing: it may destroy the probe.
  using Finished = std::function<void(const ProbeResult&)>;

  PathProbe(EventLoop& loop, Resolver& resolver, Request request, Finished finished);
  PathProbe(const PathProbe&) = delete;

 private:
  struct Stream final : EventLoop::Handler {
    explicit Stream(PathProbe& of) : probe(of) {}
    void on_ready(std::uint32_t events) override { probe.on_ready(*this, events); }

    PathProbe& probe;
    std::optional<Dial> dial;
    UniqueFd fd;
    EventLoop::Watch watch;
    EventLoop::Clock::time_point pinged;
    std::uint32_t pings_left = 0;
    bool streaming = false;
    bool over = false;
    std::uint64_t bytes = 0;  // that have come through
  };

  void dial(Stream& stream);
  void connected(Stream& stream, UniqueFd fd);
  bool ping(Stream& stream);
  void on_ready(Stream& stream, std::uint32_t events);
  bool pong(Stream& stream);
  void lost(Stream& stream, const std::string& reason);
  void sample();
  bool sends() const { return request_.direction == ProbeDirection::send; }
  void count(Stream& stream) const;
  RateMeter::Duration window() const;
  void end(const std::string& reason = {});

  EventLoop& loop_;
  Resolver& resolver_;
  const Request request_;
  Finished finished_;
  const EventLoop::Clock::time_point begun_;
  std::vector<std::unique_ptr<Stream>> streams_;
  EventLoop::Timer time_limit_;
  EventLoop::Timer sampling_;
  std::optional<EventLoop::Clock::duration> round_trip_;
  RateMeter rate_;
};

}  // namespace pccl
