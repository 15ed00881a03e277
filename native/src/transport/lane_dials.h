// Dials the lanes of one link on one path, each until it is up: at once, then with growing pauses. The other side does the same,
// so that it is enough if one of the two can be reached; for the first lanes the peer with the greater id leaves the
// other one a head start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/dial.h"
#include "transport/event_loop.h"
#include "transport/handshake.h"
#include "transport/resolver.h"

namespace pccl {

class LaneDials {
 public:
  class Owner {
   public:
    // Of the last connection for the slot, whichever side dialled it.
    virtual std::uint64_t taken_version(std::uint32_t slot) const = 0;
    virtual bool wants(std::uint32_t slot) const = 0;
    virtual void dialled(const Hello& hello, Connection connection, const Welcome& welcome) = 0;
    // An attempt has failed for a reason that another one won't change; nevertheless one follows.
    virtual void cannot_dial(Dial::Failure failure) = 0;
    // The peer has given up the link.
    virtual void gone(const Welcome& welcome) = 0;

   protected:
    ~Owner() = default;
  };

  struct Target {
    Hello hello;  // but for slot and incarnation
    Path path = Path::tcp;
    std::string host;
    std::uint16_t port = 0;
    std::string congestion_control = {};
  };

  LaneDials(EventLoop& loop, Resolver& resolver, Owner& owner, Target target)
      : loop_(loop), resolver_(resolver), owner_(owner), target_(std::move(target)) {}

  // What is under way begins anew.
  void set_target(Target target);
  void set_timeout(EventLoop::Clock::duration timeout) { timeout_ = timeout; }

  // Begins after `delay`, unless it is being dialled already.
  void start(std::uint32_t slot, EventLoop::Clock::duration delay);
  // The other side's connection fills the slot: an attempt that hasn't begun is not needed.
  void filled(std::uint32_t slot);
  void stop();

  // Why the last attempt failed; of the first ones, what they wait for.
  std::string state() const;

 private:
  struct Slot {
    std::unique_ptr<Dial> dial;
    std::uint64_t incarnation = 0;  // of the last attempt
    EventLoop::Clock::duration pause{};
  };

  void dial(std::uint32_t slot, EventLoop::Clock::duration delay);
  // An attempt has ended without success.
  void again(std::uint32_t slot);

  EventLoop& loop_;
  Resolver& resolver_;
  Owner& owner_;
  Target target_;
  EventLoop::Clock::duration timeout_{};
  std::vector<Slot> slots_;
  std::string last_failure_;
};

}  // namespace pccl
