// The listening side of the handshake. A stranger has hello_timeout to say a valid Hello; one whose Hello fits no
// view that is known yet waits for a while, since its peer may have heard of the view first. Whoever is turned
// away sees its connection closed and may dial again; whose link is gone is told so before.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <optional>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "transport/channel.h"
#include "transport/event_loop.h"
#include "transport/handshake.h"

namespace pccl {

class Acceptor final : EventLoop::Handler {
 public:
  // forward: it is for another peer, whose Welcome will come.
  enum class Judgement : std::uint8_t { accept, forward, wait, gone, refuse };

  class Owner {
   public:
    virtual Judgement judge(const Hello& hello, Path path) = 0;
    // What to say to one that is accepted, or whose link is gone.
    virtual Welcome welcome(const Hello& hello) = 0;
    // The Welcome has been sent.
    virtual void accepted(const Hello& hello, Connection connection) = 0;
    virtual void forward(const Hello& hello, UniqueFd fd) = 0;

   protected:
    ~Owner() = default;
  };

  // `path`: shm for a listener of this host's processes.
  Acceptor(EventLoop& loop, Owner& owner, UniqueFd listener, Path path);

  // The owner knows another view now: those that wait are judged again.
  void judge_waiting();

 private:
  struct Stranger final : EventLoop::Handler {
    explicit Stranger(Acceptor& to) : acceptor(to) {}
    void on_ready(std::uint32_t events) override { acceptor.on_stranger(*this, events); }

    Acceptor& acceptor;
    std::list<Stranger>::iterator self;
    UniqueFd fd;
    UniqueFd memory;  // that it has passed
    EventLoop::Watch watch;
    EventLoop::Timer timeout;
    std::array<std::uint8_t, hello_bytes> bytes;
    std::size_t got = 0;
    std::optional<Hello> hello;
  };

  void on_ready(std::uint32_t events) override;
  void add(UniqueFd fd);
  void on_stranger(Stranger& stranger, std::uint32_t events);
  void judge(Stranger& stranger);
  void pause();

  EventLoop& loop_;
  Owner& owner_;
  UniqueFd listener_;
  const Path path_;
  EventLoop::Watch watch_;
  EventLoop::Timer resume_;
  std::list<Stranger> strangers_;  // oldest first
};

}  // namespace pccl
