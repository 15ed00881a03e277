// The dialling side of the handshake: connects to a peer, says Hello, waits for the Welcome. With `retry` it tries
// again until it is destroyed; otherwise it gives up when every address of the host has failed once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "transport/event_loop.h"
#include "transport/frame.h"
#include "transport/resolver.h"

namespace pccl {

class Dial final : EventLoop::Handler {
 public:
  struct Request {
    Hello hello;
    std::string host;
    std::uint16_t port = 0;
    bool retry = false;
    EventLoop::Clock::duration first_delay{};
  };
  // Called once at most, as the last thing that the dial does: it may be destroyed from there.
  struct Outcome {
    std::function<void(UniqueFd)> connected;
    std::function<void(const std::string& reason)> gave_up;
  };

  Dial(EventLoop& loop, Resolver& resolver, Request request, Outcome outcome);
  Dial(const Dial&) = delete;

  const Request& request() const { return request_; }
  // Why the last attempt failed, or what the present one waits for.
  const std::string& state() const { return state_; }

 private:
  enum class Phase : std::uint8_t { idle, connecting, greeting };

  void on_ready(std::uint32_t events) override;
  void start();
  void connect(const Address& address);
  void greet();
  void read_welcome();
  void attempt_failed(std::string reason);

  EventLoop& loop_;
  Resolver& resolver_;
  const Request request_;
  Outcome outcome_;
  Phase phase_ = Phase::idle;
  std::string state_ = "not tried yet";
  std::vector<Address> addresses_;
  std::size_t next_address_ = 0;
  EventLoop::Clock::duration delay_;
  Resolver::Ticket ticket_;
  UniqueFd fd_;
  EventLoop::Watch watch_;
  EventLoop::Timer timer_;  // of the attempt, or until the next one
  std::array<std::uint8_t, welcome_bytes> welcome_;
  std::size_t welcome_got_ = 0;
};

}  // namespace pccl
