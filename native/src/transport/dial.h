// One attempt of the dialling side of the handshake: connects to a peer, says Hello, waits for the Welcome. It gives
// up when every address of the host has failed once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "transport/channel.h"
#include "transport/event_loop.h"
#include "transport/handshake.h"
#include "transport/resolver.h"

namespace pccl {

class Dial final : EventLoop::Handler {
 public:
  enum class Until : std::uint8_t {
    welcome,
    hello_sent,  // a relay's: the Welcome is for somebody else
  };
  enum class Failure : std::uint8_t {
    passing,
    nobody,  // no such socket on this host: the peer's engine is no more, or not where it was said to be
    lasting,  // the two can't be connected on this path
  };
  struct Request {
    Hello hello;
    Path path = Path::tcp;
    std::string host;  // not for shm, where `port` names the peer's socket
    std::uint16_t port = 0;
    std::string congestion_control = {};  // of TCP; empty: the system's
    EventLoop::Clock::duration first_delay{};
    EventLoop::Clock::duration timeout{};  // of each address
    Until until = Until::welcome;
  };
  // One of them is called, once, as the last thing that the dial does: it may be destroyed from there.
  struct Outcome {
    std::function<void(Connection, const Welcome&)> connected;
    std::function<void(const std::string& reason, Failure)> gave_up;
    std::function<void(const Welcome&)> gone;  // the peer has said so
  };

  Dial(EventLoop& loop, Resolver& resolver, Request request, Outcome outcome);
  Dial(const Dial&) = delete;

  // What it waits for, or why it failed; empty before it has begun.
  const std::string& state() const { return state_; }

 private:
  enum class Phase : std::uint8_t { idle, connecting, greeting };

  void on_ready(std::uint32_t events) override;
  void start();
  void connect(const Address& address);
  void greet();
  bool say_hello();
  void read_welcome();
  void succeed(const Welcome& welcome);
  void attempt_failed(std::string reason, Failure failure = Failure::passing);

  EventLoop& loop_;
  Resolver& resolver_;
  const Request request_;
  Outcome outcome_;
  Phase phase_ = Phase::idle;
  std::string state_;
  std::vector<Address> addresses_;
  std::size_t next_address_ = 0;
  Resolver::Ticket ticket_;
  UniqueFd fd_;
  std::unique_ptr<ShmSegment> segment_;
  EventLoop::Watch watch_;
  EventLoop::Timer timer_;
  WelcomeBytes welcome_;
  std::size_t welcome_got_ = 0;
};

}  // namespace pccl
