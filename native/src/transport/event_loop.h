// One thread's epoll loop: watched descriptors, memory that others write to, timers, and tasks from other threads. It
// sleeps when there is nothing to do; when something is expected it looks around for a short while before, since to be
// woken takes longer than what a small op has to wait for.
//
// While it sleeps another thread can drive it for a moment (Driver): to have something done at once costs less than to
// wake the loop's thread for it, and to be woken by it when it is done. All but post(), stop(), expect(), is_mine() and
// try_drive() belong to the one thread that has the loop: the one in run() while it is awake, or the driver, or the
// constructing thread before run().
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
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
    // somebody has already. `idle`: nothing is expected, so it may also wait for a moment.
    virtual bool sleep(bool idle) = 0;
    // The loop is driven: it needn't be woken until the next sleep().
    virtual void wake() = 0;

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

  // Has the loop, in place of its thread, until it goes.
  class Driver {
   public:
    explicit Driver(EventLoop& loop) : loop_(&loop) {}
    Driver(Driver&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)) {}
    Driver& operator=(Driver&&) = delete;
    ~Driver();
    void run(const Task& task) noexcept;
    // Looks around until nothing is expected any more, or the loop's own thread is needed, for 50 µs at most; 100 µs
    // if others had the core meanwhile.
    void look_around() noexcept;

   private:
    EventLoop* loop_;
  };

  // Throws EngineError (io).
  EventLoop();

  // Any thread. Nothing: the loop's thread is awake, or about to be, or has ended; or, for one who wants to look
  // around, there is nothing but descriptors, which wake the loop's thread anyway.
  std::optional<Driver> try_drive(bool to_look_around);
  // A driver has the loop: its own thread.
  bool is_driven() const { return driven_; }
  // Whether this thread has the loop.
  bool is_mine() const { return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }

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
  void serve(std::span<const epoll_event> events);
  // Looks around for a while, if that is worth it; true: something came.
  bool spin();
  // Whether everybody knows that this thread must be woken.
  bool may_sleep();
  bool put_pollers_to_sleep();
  void sleep();
  void take();
  void leave();
  void kick();
  Clock::time_point next_timer() const {
    return timers_.empty() ? Clock::time_point::max() : timers_.begin()->first.first;
  }
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

  // Whoever has the loop holds it; the loop's thread lets it go while it sleeps.
  std::mutex loop_mutex_;
  std::atomic<std::thread::id> owner_;
  std::atomic<bool> thread_waits_{false};  // the loop's thread has woken up while a driver has the loop
  bool running_ = false;
  bool driven_ = false;
  std::uint64_t drives_ = 0;
  Clock::time_point wakes_for_;  // the timer until which the loop's thread sleeps

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
