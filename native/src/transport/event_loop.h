// One thread's epoll loop: watched descriptors, memory that others write to, timers, and tasks from other threads. It
// sleeps when there is nothing to do; when something is expected it looks around for a short while before, since to be
// woken takes longer than what a small op has to wait for. All but post() and stop() belong to the thread that is in run(), or to the constructing thread
// before it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace pccl {

class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using Task = std::function<void()>;

  class Handler {
   public:
    // `events`: EPOLLIN, EPOLLOUT, …
    virtual void on_ready(std::uint32_t events) = 0;

   protected:
    ~Handler() = default;
  };

  // What a system call isn't needed to look at.
  class Poller {
   public:
    // Looks, and does what there is to do; false: nothing.
    virtual bool poll() = 0;
    // The loop is about to sleep: from now on whoever has something for this one wakes it by a descriptor. False:
    // somebody has already.
    virtual bool sleep() = 0;

   protected:
    ~Poller() = default;
  };

  // Ends its watch, its polling or its timer when it goes. None may outlive the loop.
  class Watch {
   public:
    Watch() = default;
    Watch(EventLoop& loop, int fd, std::uint32_t events, Handler& handler);
    Watch(Watch&& other) noexcept;
    Watch& operator=(Watch&& other) noexcept;
    ~Watch() { reset(); }
    // False: the system refused (no kernel memory), and nothing will ever be heard.
    bool active() const { return loop_ != nullptr; }
    void set(std::uint32_t events);
    void reset();

   private:
    EventLoop* loop_ = nullptr;
    int fd_ = -1;
    std::uint64_t token_ = 0;
    std::uint32_t events_ = 0;
  };

  class Polling {
   public:
    Polling() = default;
    Polling(EventLoop& loop, Poller& poller);
    Polling(Polling&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), poller_(other.poller_) {}
    Polling& operator=(Polling&& other) noexcept;
    ~Polling() { reset(); }
    void reset();

   private:
    EventLoop* loop_ = nullptr;
    Poller* poller_ = nullptr;
  };

  class Timer {
   public:
    Timer() = default;
    Timer(EventLoop& loop, Clock::duration delay, Task task);
    Timer(Timer&& other) noexcept;
    Timer& operator=(Timer&& other) noexcept;
    ~Timer() { reset(); }
    void reset();

   private:
    EventLoop* loop_ = nullptr;
    std::pair<Clock::time_point, std::uint64_t> key_;
  };

  // Throws EngineError (io).
  EventLoop();

  // Runs `task` on the loop's thread; false when the loop has ended, and then never.
  bool post(Task task);
  // The loop ends when the tasks that came before are through.
  void stop();

  // Something is expected soon, or no longer: each true takes a false. From any thread.
  void expect(bool soon) { expected_.fetch_add(soon ? 1 : -1, std::memory_order_relaxed); }

  // Runs `task` on this thread after the handler, timer or task that is running, in order.
  void defer(Task task) { deferred_.push_back(std::move(task)); }

  void run();

 private:
  void drain_posted();
  void run_deferred();
  void run_timers();
  bool poll_all();
  // Waits for descriptors at most that long, and serves them; false: there was none.
  bool serve_descriptors(int timeout_ms);
  // Looks around for a while, if that is worth it; true: something came.
  bool spin();
  // Whether everybody knows that this thread must be woken.
  bool may_sleep();
  void sleep();
  int timeout_ms() const;

  UniqueFd epoll_;
  UniqueFd wake_;
  std::uint64_t next_token_ = 1;
  // Events carry tokens, never pointers, so that one for a handler that is gone finds nothing.
  std::unordered_map<std::uint64_t, Handler*> handlers_;
  std::vector<Poller*> pollers_;  // null: gone, while poll_all() goes through them
  bool polling_ = false;
  std::map<std::pair<Clock::time_point, std::uint64_t>, Task> timers_;
  std::vector<Task> deferred_;

  std::atomic<int> expected_{0};
  Clock::duration spin_;  // how long to look around next time
  Clock::time_point spin_again_;  // not before
  Clock::duration spin_pause_;

  std::atomic<bool> has_posted_{false};
  std::mutex mutex_;
  std::vector<Task> posted_;
  bool asleep_ = false;  // or about to be: who posts must wake it
  bool stopping_ = false;
  bool ended_ = false;
};

}  // namespace pccl
