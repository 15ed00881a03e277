// Measures what a link's connections carry, for LaneCount to say how many it needs, and for PathRate how much is to be
// on its way. While nothing is sent it does nothing.
#pragma once

#include <cstdint>
#include <optional>

#include "transport/event_loop.h"
#include "transport/lane_count.h"
#include "transport/path_rate.h"

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
    // Of in_flight_bytes().
    virtual void in_flight_changed() = 0;
    // Connections that were full may not be any more.
    virtual void top_up() = 0;

   protected:
    ~Owner() = default;
  };

  LaneTuner(EventLoop& loop, Owner& owner) : loop_(loop), owner_(owner) {}

  // Until then, one connection.
  void begin(LaneCount::Duration round_trip, bool same_machine);
  bool begun() const { return count_.has_value(); }
  std::uint32_t used() const { return count_ ? count_->used() : 1; }
  std::uint32_t wanted() const { return count_ ? count_->wanted() : 1; }

  // That all connections together are to have on their way, and to be sent; 0: no limit.
  std::uint64_t in_flight_bytes() const { return in_flight_bytes_; }

  // A chunk goes.
  void sent();
  // One more could have gone, and there was none.
  void starved() { starved_ = true; }

 private:
  void tick();
  void top_up();

  EventLoop& loop_;
  Owner& owner_;
  std::optional<LaneCount> count_;
  std::optional<PathRate> rate_;
  std::uint64_t in_flight_bytes_ = 0;
  LaneCount::Duration period_{};
  LaneCount::Duration top_up_period_{};
  EventLoop::Timer timer_;
  EventLoop::Timer top_up_timer_;
  EventLoop::Clock::time_point last_tick_;
  bool ticking_ = false;
  bool sent_ = false;
  bool starved_ = false;
};

}  // namespace pccl
