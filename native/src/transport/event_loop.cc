#include "transport/event_loop.h"

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

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
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
    if (posted_.size() > 1) return true;  // the first one has woken the loop
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
  return true;
}

void EventLoop::stop() {
  post([this] {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  });
}

void EventLoop::drain_posted() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
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

bool EventLoop::may_sleep() {
  return std::all_of(pollers_.begin(), pollers_.end(), [](Poller* poller) { return poller->sleep(); });
}

int EventLoop::timeout_ms() const {
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first.first - Clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<decltype(ms)>(ms, 0, 60'000));
}

void EventLoop::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ && posted_.empty()) {
        ended_ = true;
        return;
      }
    }
    const int timeout = poll_all() || !may_sleep() ? 0 : timeout_ms();
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    PCCL_CHECK(count >= 0 || errno == EINTR);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t token = events[static_cast<std::size_t>(i)].data.u64;
      if (token == wake_token) {
        drain_posted();
        continue;
      }
      const auto found = handlers_.find(token);
      if (found == handlers_.end()) continue;
      found->second->on_ready(events[static_cast<std::size_t>(i)].events);
      run_deferred();
    }
    run_timers();
  }
}

}  // namespace pccl
