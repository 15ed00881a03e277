// Measures what a link's connections carry, for LaneCount to say how many it needs. While nothing is sent it does
// nothing.
#pragma once

#include <cstdint>
#include <optional>

#include "transport/event_loop.h"
#include "transport/lane_count.h"

namespace pccl {

class LaneTuner {
 public:
  struct Carried {
    std::uint64_t bytes = 0;  // that the peer's system has acknowledged since the last call
    std::uint32_t up = 0;     // connections
  };
  class Owner {
   public:
    virtual Carried take_carried() = 0;
    // Of used() or wanted().
    virtual void number_changed() = 0;

   protected:
    ~Owner() = default;
  };

  LaneTuner(EventLoop& loop, Owner& owner) : loop_(loop), owner_(owner) {}

  // Until then, one connection.
  void begin(LaneCount::Duration round_trip, bool same_machine);
  bool begun() const { return count_.has_value(); }
  std::uint32_t used() const { return count_ ? count_->used() : 1; }
  std::uint32_t wanted() const { return count_ ? count_->wanted() : 1; }

  // A chunk goes.
  void sent();
  // One more could have gone, and there was none.
  void starved() { starved_ = true; }

 private:
  void tick();

  EventLoop& loop_;
  Owner& owner_;
  std::optional<LaneCount> count_;
  LaneCount::Duration period_{};
  EventLoop::Timer timer_;
  EventLoop::Clock::time_point last_tick_;
  bool ticking_ = false;
  bool sent_ = false;
  bool starved_ = false;
};

}  // namespace pccl
