#include "transport/shm_channel.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/limits.h"

namespace pccl {
namespace {

// A writer that found the ring full goes on when half of it is free: fewer, longer turns for both.
constexpr std::size_t room_worth_waking = limits::shm_ring_bytes / 2;

}  // namespace

ShmChannel::ShmChannel(UniqueFd fd, std::unique_ptr<ShmSegment> segment)
    : fd_(std::move(fd)),
      segment_(std::move(segment)),
      own_(segment_->own()),
      other_(segment_->other()),
      reader_(segment_->reader()),
      writer_(segment_->writer()) {}

bool ShmChannel::start(EventLoop& loop, Channel::Handler& handler) {
  handler_ = &handler;
  loop_ = &loop;
  EventLoop::Handler& watcher = *this;
  watch_ = EventLoop::Watch(loop, fd_.get(), EPOLLIN, watcher);
  EventLoop::Poller& poller = *this;
  polling_ = EventLoop::Polling(loop, poller);
  return watch_.active();
}

void ShmChannel::close() {
  polling_.reset();
  watch_.reset();
  fd_.reset();
}

ssize_t ShmChannel::read(std::span<const iovec> into) {
  const auto got = reader_.read(into, [this] {
    if (reader_.free_bytes() >= room_worth_waking) wake_other(ShmSide::for_room);
  });
  if (got && *got > 0) return static_cast<ssize_t>(*got);
  if (got && ended_) return 0;
  errno = got ? EAGAIN : EPROTO;
  return -1;
}

ssize_t ShmChannel::write(std::span<const iovec> from) {
  const auto sent = writer_.write(from, [this] { wake_other(ShmSide::for_bytes); });
  if (sent && *sent > 0) return static_cast<ssize_t>(*sent);
  errno = sent ? EAGAIN : EPROTO;
  return -1;
}

// One that has nothing in flight may be about to call what these bytes are of, and then finds them by itself. While
// this side is driven, for a moment, its bell can wait.
void ShmChannel::wake_other(std::uint32_t what) {
  const std::uint32_t asleep = other_.asleep.load();
  if ((asleep & what) == 0) return;
  if (loop_->is_driven() && (asleep & ShmSide::idle) != 0) {
    bell_is_due_ = true;
  } else {
    ring_bell();
  }
}

void ShmChannel::ring_bell() {
  bell_is_due_ = false;
  if (other_.asleep.exchange(0) == 0) return;
  // When the socket is full of such bytes the other side has enough of them to wake up; its end is found by reading.
  const std::uint8_t bell = 0;
  [[maybe_unused]] const auto sent = ::send(fd_.get(), &bell, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// A position that can't be is for read() and write() to find.
bool ShmChannel::has_bytes() const { return ended_ || reader_.available() != 0u; }

bool ShmChannel::has_room() const {
  const auto room = writer_.room();
  return waits_for_room_ && (!room || *room >= room_worth_waking);
}

bool ShmChannel::poll() {
  const bool readable = has_bytes();
  const bool writable = has_room();
  if (!readable && !writable) return false;
  handler_->on_channel(readable, writable);
  return true;
}

bool ShmChannel::sleep(bool idle) {
  if (bell_is_due_) ring_bell();
  own_.asleep.store(ShmSide::for_bytes | (waits_for_room_ ? ShmSide::for_room : 0) | (idle ? ShmSide::idle : 0));
  return !has_bytes() && !has_room();
}

void ShmChannel::on_ready(std::uint32_t) {
  std::array<std::uint8_t, 64> bells;
  const ssize_t got = ::recv(fd_.get(), bells.data(), bells.size(), 0);
  if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return;  // what it rang for is found by poll()
  // What it wrote before comes first.
  ended_ = true;
  watch_.reset();
}

}  // namespace pccl
