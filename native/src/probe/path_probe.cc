#include "probe/path_probe.h"

// Not <netinet/tcp.h>, whose tcp_info lacks the counters.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/limits.h"
#include "probe/probe_wire.h"
#include "transport/socket.h"

namespace pccl {
namespace {

// A second one, because the first one may have woken a process, or a path.
constexpr std::uint32_t pings = 2;
constexpr auto sample_interval = std::chrono::milliseconds(20);
// A rate is looked at over so many round trips, and within these limits.
constexpr int window_round_trips = 3;
constexpr auto window_min = std::chrono::milliseconds(120);
constexpr auto window_max = std::chrono::milliseconds(500);

std::uint64_t bytes_acknowledged(int fd) {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return 0;
  return info.tcpi_bytes_acked;
}

// What is under way in either direction is dropped by both systems, so that it doesn't disturb the next probe.
void end_at_once(int fd) {
  const linger now{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace

PathProbe::PathProbe(EventLoop& loop, Resolver& resolver, Request request, Finished finished)
    : loop_(loop),
      resolver_(resolver),
      request_(std::move(request)),
      finished_(std::move(finished)),
      begun_(EventLoop::Clock::now()) {
  for (std::uint32_t i = 0; i < request_.connections; ++i) {
    streams_.push_back(std::make_unique<Stream>(*this));
    dial(*streams_.back());
  }
}

void PathProbe::dial(Stream& stream) {
  stream.dial.emplace(
      loop_, resolver_,
      Dial::Request{.hello = request_.hello,
                    .host = request_.target.host,
                    .port = request_.target.port,
                    .congestion_control = request_.congestion_control,
                    .timeout = limits::probe_dial_timeout},
      Dial::Outcome{.connected = [this, &stream](Connection to, const Welcome&) { connected(stream, std::move(to.fd)); },
                    .gave_up = [this, &stream](const std::string& reason, Dial::Failure) { lost(stream, reason); },
                    .gone = [this, &stream](const Welcome&) { lost(stream, "the peer refuses the connection"); }});
}

void PathProbe::connected(Stream& stream, UniqueFd fd) {
  stream.dial.reset();
  stream.fd = std::move(fd);
  stream.pings_left = pings;
  stream.watch = EventLoop::Watch(loop_, stream.fd.get(), EPOLLIN, stream);
  const bool first = std::none_of(streams_.begin(), streams_.end(), [&](const std::unique_ptr<Stream>& other) {
    return other.get() != &stream && other->fd;
  });
  if (first) time_limit_ = EventLoop::Timer(loop_, limits::probe_time_max, [this] { end(); });
  if (!stream.watch.active() || !ping(stream)) lost(stream, "connection lost: " + errno_text(errno));
}

bool PathProbe::ping(Stream& stream) {
  stream.pinged = EventLoop::Clock::now();
  return ::send(stream.fd.get(), &probe_wire::ping, 1, MSG_NOSIGNAL) == 1;
}

void PathProbe::on_ready(Stream& stream, std::uint32_t events) {
  std::int64_t got = 0;
  if (!stream.streaming) {
    got = pong(stream) ? 0 : -1;
  } else {
    if ((events & ~std::uint32_t{EPOLLOUT}) != 0) got = probe_wire::throw_away(stream.fd.get());
    if (got > 0 && !sends()) stream.bytes += static_cast<std::uint64_t>(got);
    if (got >= 0 && (events & EPOLLOUT) != 0) got = probe_wire::send_noise(stream.fd.get());
  }
  if (got < 0) lost(stream, "the peer ended the connection");
}

bool PathProbe::pong(Stream& stream) {
  std::uint8_t byte = 0;
  const ssize_t got = ::recv(stream.fd.get(), &byte, 1, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  const auto time = EventLoop::Clock::now() - stream.pinged;
  round_trip_ = std::min(round_trip_.value_or(time), time);
  if (--stream.pings_left > 0) return ping(stream);
  const std::uint8_t who = sends() ? probe_wire::stream_to_you : probe_wire::stream_to_me;
  if (::send(stream.fd.get(), &who, 1, MSG_NOSIGNAL) != 1) return false;
  stream.streaming = true;
  if (sends()) stream.watch.set(EPOLLIN | EPOLLOUT);
  if (std::ranges::count_if(streams_, [](const auto& other) { return other->streaming; }) == 1) sample();
  return true;
}

void PathProbe::count(Stream& stream) const {
  if (sends() && stream.fd) stream.bytes = bytes_acknowledged(stream.fd.get());
}

// Measured on with what is left, unless nothing is.
void PathProbe::lost(Stream& stream, const std::string& reason) {
  count(stream);
  stream.over = true;
  stream.watch.reset();
  stream.fd.reset();
  if (std::ranges::all_of(streams_, [](const auto& other) { return other->over; })) end(reason);
}

RateMeter::Duration PathProbe::window() const {
  return std::clamp<RateMeter::Duration>(window_round_trips * round_trip_.value_or(window_max), window_min,
                                         window_max);
}

void PathProbe::sample() {
  std::uint64_t bytes = 0;
  for (const auto& stream : streams_) {
    count(*stream);
    bytes += stream->bytes;
  }
  rate_.note(EventLoop::Clock::now(), bytes, window());
  if (rate_.settled()) return end();
  sampling_ = EventLoop::Timer(loop_, sample_interval, [this] { sample(); });
}

// In a deferred task, as a dial or a timer of its own may be the one that calls.
void PathProbe::end(const std::string& reason) {
  if (!finished_) return;
  time_limit_.reset();
  sampling_.reset();
  ProbeResult result;
  const std::chrono::duration<double> time = EventLoop::Clock::now() - begun_;
  result.seconds = time.count();
  result.bytes_per_second = rate_.bytes_per_second();
  if (round_trip_) result.round_trip_seconds = std::chrono::duration<double>(*round_trip_).count();
  for (const auto& stream : streams_) {
    result.bytes += stream->bytes;
    stream->watch.reset();
    if (stream->fd) end_at_once(stream->fd.get());
    stream->fd.reset();
  }
  if (!(result.bytes_per_second > 0)) {
    const std::string why = reason.empty() ? "nothing came through within the time" : reason;
    result.error = "probe of peer " + std::to_string(request_.target.id) + " at " + request_.target.host + ":" +
                   std::to_string(request_.target.port) + ": " + why;
  }
  loop_.defer([finished = std::exchange(finished_, nullptr), result] { finished(result); });
}

}  // namespace pccl
