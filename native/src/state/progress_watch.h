// Calls `stalled` once when nothing has been noted for a while.
#pragma once

#include <utility>

#include "transport/event_loop.h"

namespace pccl {

class ProgressWatch {
 public:
  ProgressWatch(EventLoop& loop, EventLoop::Clock::duration patience, EventLoop::Task stalled)
      : loop_(loop), patience_(patience), stalled_(std::move(stalled)), last_(EventLoop::Clock::now()) {
    arm(patience_);
  }
  ProgressWatch(const ProgressWatch&) = delete;

  void note() { last_ = EventLoop::Clock::now(); }

 private:
  void arm(EventLoop::Clock::duration delay) {
    timer_ = EventLoop::Timer(loop_, delay, [this] {
      const auto left = last_ + patience_ - EventLoop::Clock::now();
      if (left > EventLoop::Clock::duration::zero()) return arm(left);
      // The owner may destroy this watch from there.
      const auto stalled = stalled_;
      stalled();
    });
  }

  EventLoop& loop_;
  const EventLoop::Clock::duration patience_;
  const EventLoop::Task stalled_;
  EventLoop::Clock::time_point last_;
  EventLoop::Timer timer_;
};

}  // namespace pccl
