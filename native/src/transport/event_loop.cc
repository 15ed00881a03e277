#include "transport/event_loop.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "pccl/engine.h"

namespace pccl {
namespace {

constexpr std::uint64_t wake_token = 0;
// What a sleeper loses by being woken is of this size; to look around for longer would cost more than it can gain.
constexpr EventLoop::Clock::duration spin_max = std::chrono::microseconds(50);
constexpr EventLoop::Clock::duration spin_min = std::chrono::microseconds(1);
// A driver, whose thread has other things to do, gives the loop back after so long, also when others have had the core.
constexpr EventLoop::Clock::duration drive_max = std::chrono::microseconds(100);
constexpr EventLoop::Clock::duration away_min = std::chrono::microseconds(5);
constexpr int drive_again_max = 3;
// Somebody else has had the core for as long: it isn't asked for again for a pause that doubles each time.
constexpr EventLoop::Clock::duration away_max = std::chrono::microseconds(20);
constexpr EventLoop::Clock::duration spin_pause_min = std::chrono::microseconds(100);
constexpr EventLoop::Clock::duration spin_pause_max = std::chrono::milliseconds(100);

}  // namespace

EventLoop::Watch::Watch(EventLoop& loop, int fd, std::uint32_t events, Handler& handler)
    : loop_(&loop), fd_(fd), token_(loop.next_token_++), events_(events) {
  loop.handlers_.emplace(token_, &handler);
  epoll_event event{.events = events, .data = {.u64 = token_}};
  if (::epoll_ctl(loop.epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) reset();
}

EventLoop::Watch::Watch(Watch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), fd_(other.fd_), token_(other.token_), events_(other.events_) {}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    fd_ = other.fd_;
    token_ = other.token_;
    events_ = other.events_;
  }
  return *this;
}

void EventLoop::Watch::set(std::uint32_t events) {
  if (loop_ == nullptr || events == events_) return;
  events_ = events;
  epoll_event event{.events = events, .data = {.u64 = token_}};
  ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
}

void EventLoop::Watch::reset() {
  if (loop_ == nullptr) return;
  ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_DEL, fd_, nullptr);
  loop_->handlers_.erase(token_);
  loop_ = nullptr;
}

EventLoop::Polling::Polling(EventLoop& loop, Poller& poller) : loop_(&loop), poller_(&poller) {
  loop.pollers_.push_back(&poller);
}

EventLoop::Polling& EventLoop::Polling::operator=(Polling&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    poller_ = other.poller_;
  }
  return *this;
}

void EventLoop::Polling::reset() {
  if (loop_ == nullptr) return;
  auto& pollers = loop_->pollers_;
  if (loop_->polling_) {
    std::replace(pollers.begin(), pollers.end(), poller_, static_cast<Poller*>(nullptr));
  } else {
    std::erase(pollers, poller_);
  }
  loop_ = nullptr;
}

EventLoop::Timer::Timer(EventLoop& loop, Clock::duration delay, Task task)
    : loop_(&loop), key_(Clock::now() + delay, loop.next_token_++) {
  loop.timers_.emplace(key_, std::move(task));
}

EventLoop::Timer::Timer(Timer&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), key_(other.key_) {}

EventLoop::Timer& EventLoop::Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    key_ = other.key_;
  }
  return *this;
}

void EventLoop::Timer::reset() {
  if (loop_ == nullptr) return;
  loop_->timers_.erase(key_);
  loop_ = nullptr;
}

EventLoop::EventLoop()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      spin_(spin_max),
      spin_pause_(spin_pause_min) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = wake_token}};
  if (!epoll_ || !wake_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    throw EngineError({ErrorCode::io, std::string("create engine: no event loop: ") + std::strerror(errno), {}});
  }
}

bool EventLoop::post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    posted_.push_back(std::move(task));
    has_posted_.store(true, std::memory_order_relaxed);
    if (!std::exchange(asleep_, false)) return true;
  }
  kick();
  return true;
}

void EventLoop::kick() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::stop() {
  post([this] {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  });
}

void EventLoop::drain_posted() {
  if (!has_posted_.load(std::memory_order_relaxed)) return;
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
    has_posted_.store(false, std::memory_order_relaxed);
  }
  for (Task& task : tasks) {
    task();
    run_deferred();
  }
}

void EventLoop::run_deferred() {
  // A deferred task may defer another one.
  for (std::size_t i = 0; i < deferred_.size(); ++i) {
    const Task task = std::move(deferred_[i]);
    task();
  }
  deferred_.clear();
}

void EventLoop::run_timers() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
    run_deferred();
  }
}

bool EventLoop::poll_all() {
  bool found = false;
  polling_ = true;
  for (std::size_t i = 0; i < pollers_.size(); ++i) {
    if (pollers_[i] == nullptr || !pollers_[i]->poll()) continue;
    found = true;
    run_deferred();
  }
  polling_ = false;
  std::erase(pollers_, nullptr);
  return found;
}

// Whoever else could run on this core does, each time around. When somebody has, for long, the core is wanted, and a
// sleeper that is woken gets it sooner than one who keeps asking for it.
bool EventLoop::spin() {
  auto now = Clock::now();
  if (expected_.load(std::memory_order_relaxed) == 0 || now < spin_again_) return false;
  const auto end = now + spin_;
  while (now < end) {
    ::sched_yield();
    const auto before = std::exchange(now, Clock::now());
    if (now - before >= away_max) {
      spin_again_ = now + spin_pause_;
      spin_pause_ = std::min(2 * spin_pause_, spin_pause_max);
      return false;
    }
    if (has_posted_.load(std::memory_order_relaxed) || poll_all() || serve_descriptors(0)) {
      spin_ = std::min(2 * spin_, spin_max);
      spin_pause_ = std::max(spin_pause_ / 2, spin_pause_min);
      return true;
    }
  }
  spin_ = std::max(spin_ / 2, spin_min);
  return false;
}

bool EventLoop::may_sleep() {
  {
    const std::lock_guard lock(mutex_);
    if (!posted_.empty()) return false;
    asleep_ = true;
  }
  return put_pollers_to_sleep();
}

bool EventLoop::put_pollers_to_sleep() {
  const bool idle = expected_.load(std::memory_order_relaxed) == 0;
  bool all = true;
  for (Poller* const poller : pollers_) all = poller->sleep(idle) && all;
  return all;
}

void EventLoop::sleep() {
  const auto begin = Clock::now();
  const int timeout = timeout_ms();
  wakes_for_ = next_timer();
  const std::uint64_t drives = drives_;
  std::array<epoll_event, 64> events;
  leave();
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
  PCCL_CHECK(count >= 0 || errno == EINTR);
  thread_waits_.store(true, std::memory_order_relaxed);
  take();
  thread_waits_.store(false, std::memory_order_relaxed);
  // What a driver has served since comes again if it isn't over.
  if (count > 0 && drives == drives_) serve({events.data(), static_cast<std::size_t>(count)});
  // With the way to sleep and back, it came about as soon as it would have been waited for.
  if (Clock::now() - begin < 2 * spin_max) spin_ = std::min(2 * spin_, spin_max);
}

void EventLoop::take() {
  loop_mutex_.lock();
  owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
}

void EventLoop::leave() {
  owner_.store(std::thread::id(), std::memory_order_relaxed);
  loop_mutex_.unlock();
}

bool EventLoop::serve_descriptors(int timeout_ms) {
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  PCCL_CHECK(count >= 0 || errno == EINTR);
  if (count > 0) serve({events.data(), static_cast<std::size_t>(count)});
  return count > 0;
}

void EventLoop::serve(std::span<const epoll_event> events) {
  for (const epoll_event& event : events) {
    const std::uint64_t token = event.data.u64;
    if (token == wake_token) {
      std::uint64_t times = 0;
      [[maybe_unused]] const auto got = ::read(wake_.get(), &times, sizeof times);
      continue;
    }
    const auto found = handlers_.find(token);
    if (found == handlers_.end()) continue;
    found->second->on_ready(event.events);
    run_deferred();
  }
}

int EventLoop::timeout_ms() const {
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first.first - Clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<decltype(ms)>(ms, 0, 60'000));
}

void EventLoop::run() {
  take();
  running_ = true;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      asleep_ = false;
      if (stopping_ && posted_.empty()) {
        ended_ = true;
        break;
      }
    }
    if (poll_all() || spin() || !may_sleep()) {
      serve_descriptors(0);
    } else {
      sleep();
    }
    drain_posted();
    run_timers();
  }
  running_ = false;
  leave();
}

std::optional<EventLoop::Driver> EventLoop::try_drive(bool to_look_around) {
  if (thread_waits_.load(std::memory_order_relaxed) || !loop_mutex_.try_lock()) return std::nullopt;
  // What was posted before comes first.
  const bool busy = !running_ || has_posted_.load(std::memory_order_relaxed);
  if (busy || (to_look_around && pollers_.empty())) {
    loop_mutex_.unlock();
    return std::nullopt;
  }
  owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  driven_ = true;
  ++drives_;
  for (Poller* const poller : pollers_) poller->wake();
  return Driver(*this);
}

void EventLoop::Driver::run(const Task& task) noexcept {
  task();
  loop_->run_deferred();
}

// Not for descriptors: the loop's thread, which sleeps, is woken by those.
void EventLoop::Driver::look_around() noexcept {
  auto now = Clock::now();
  const auto end = now + drive_max;
  Clock::duration left = spin_max;
  while (left.count() > 0 && now < end && loop_->expected_.load(std::memory_order_relaxed) > 0 &&
         !loop_->thread_waits_.load(std::memory_order_relaxed) &&
         !loop_->has_posted_.load(std::memory_order_relaxed)) {
    if (!loop_->poll_all()) ::sched_yield();
    loop_->run_timers();
    const auto before = std::exchange(now, Clock::now());
    // While others had the core, this thread's time has not been used up.
    left -= std::min(now - before, away_min);
  }
}

// The loop's thread sleeps on, unless there is something for it by now.
EventLoop::Driver::~Driver() {
  if (loop_ == nullptr) return;
  loop_->driven_ = false;
  bool asleep = loop_->put_pollers_to_sleep();
  for (int again = 0; !asleep && again < drive_again_max; ++again) {
    loop_->poll_all();
    asleep = loop_->put_pollers_to_sleep();
  }
  const bool late = loop_->next_timer() < loop_->wakes_for_;
  if (!asleep || late) loop_->kick();
  loop_->leave();
}

}  // namespace pccl
