#include "flaky_proxy.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <iterator>
#include <stdexcept>

#include "fake_peer.h"
#include "transport/socket.h"

namespace pccl::test {
namespace {

constexpr std::size_t buffer_bytes = 256 * 1024;

}  // namespace

FlakyProxy::FlakyProxy(std::uint16_t target_port)
    : target_port_(target_port), listener_(listen_tcp("127.0.0.1", 0)), port_(local_port(listener_.get())) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("no pipe");
  wake_read_ = UniqueFd(pipe[0]);
  wake_write_ = UniqueFd(pipe[1]);
  thread_ = std::thread([this] { run(); });
}

FlakyProxy::~FlakyProxy() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake();
  thread_.join();
}

void FlakyProxy::wake() { [[maybe_unused]] const auto written = ::write(wake_write_.get(), "", 1); }

void FlakyProxy::reset() {
  {
    const std::lock_guard lock(mutex_);
    for (Connection& connection : open_) end(connection);
  }
  wake();
}

void FlakyProxy::reset_after(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  reset_after_ = bytes;
  for (Connection& connection : open_) connection.bytes_left = draw();
}

void FlakyProxy::hold(bool forth, bool back) {
  {
    const std::lock_guard lock(mutex_);
    hold_forth_ = forth;
    hold_back_ = back;
  }
  wake();
}

void FlakyProxy::refuse(bool refuse) {
  const std::lock_guard lock(mutex_);
  refuse_ = refuse;
}

void FlakyProxy::hold_one(std::size_t n) {
  const std::lock_guard lock(mutex_);
  std::next(open_.begin(), static_cast<std::ptrdiff_t>(n))->held = true;
}

std::uint64_t FlakyProxy::draw() { return reset_after_ == 0 ? 0 : 1 + random_() % (2 * reset_after_); }

void FlakyProxy::end(Connection& connection) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  for (UniqueFd* const fd : {&connection.client, &connection.server}) {
    ::setsockopt(fd->get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    fd->reset();
  }
  connection.over = true;
  ++resets_;
}

void FlakyProxy::accept_one() {
  UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!client || refuse_) return;
  UniqueFd server;
  try {
    server = connect_to(target_port_);
  } catch (const std::runtime_error&) {
    return;  // nobody listens there any more
  }
  ++connections_;
  Connection& connection = open_.emplace_back();
  connection.client = std::move(client);
  connection.server = std::move(server);
  ::fcntl(connection.server.get(), F_SETFL, O_NONBLOCK);
  connection.bytes_left = draw();
}

bool FlakyProxy::move(Connection& connection, int from, int to, Half& half) {
  if (half.waiting.empty() && !half.ended) {
    half.waiting.resize(buffer_bytes);
    std::size_t room = buffer_bytes;
    if (connection.bytes_left > 0) room = std::min<std::size_t>(room, connection.bytes_left);
    const ssize_t got = ::recv(from, half.waiting.data(), room, 0);
    half.waiting.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    if (got == 0) {
      half.ended = true;
      ::shutdown(to, SHUT_WR);
    } else if (got < 0 && errno != EAGAIN) {
      return false;
    }
  }
  if (half.waiting.empty()) return true;
  const ssize_t sent = ::send(to, half.waiting.data(), half.waiting.size(), MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN;
  half.waiting.erase(half.waiting.begin(), half.waiting.begin() + sent);
  if (connection.bytes_left == 0) return true;
  connection.bytes_left -= std::min<std::uint64_t>(connection.bytes_left, static_cast<std::uint64_t>(sent));
  return connection.bytes_left > 0;
}

void FlakyProxy::run() {
  for (;;) {
    std::vector<pollfd> polled{{listener_.get(), POLLIN, 0}, {wake_read_.get(), POLLIN, 0}};
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return;
      open_.remove_if([](const Connection& connection) { return connection.over; });
      for (Connection& connection : open_) {
        const auto events = [&](const Half& in, bool hold_in, const Half& out, bool hold_out) {
          short wanted = 0;
          if (!hold_in && in.waiting.empty() && !in.ended) wanted |= POLLIN;
          if (!hold_out && !out.waiting.empty()) wanted |= POLLOUT;
          return wanted;
        };
        const bool forth = hold_forth_ || connection.held;
        const bool back = hold_back_ || connection.held;
        // A negative descriptor isn't polled: a held connection doesn't even show its end.
        const short client = events(connection.forth, forth, connection.back, back);
        const short server = events(connection.back, back, connection.forth, forth);
        polled.push_back({client != 0 ? connection.client.get() : -1, client, 0});
        polled.push_back({server != 0 ? connection.server.get() : -1, server, 0});
      }
    }
    if (::poll(polled.data(), polled.size(), -1) < 0) continue;
    const std::lock_guard lock(mutex_);
    std::array<char, 64> drain;
    while (::read(wake_read_.get(), drain.data(), drain.size()) > 0) {
    }
    for (Connection& connection : open_) {
      if (connection.over || connection.held) continue;
      const int client = connection.client.get();
      const int server = connection.server.get();
      bool alive = hold_forth_ || move(connection, client, server, connection.forth);
      alive = alive && (hold_back_ || move(connection, server, client, connection.back));
      if (!alive) {
        end(connection);
      } else if (connection.forth.ended && connection.back.ended) {
        connection.over = true;
        connection.client.reset();
        connection.server.reset();
      }
    }
    if ((polled[0].revents & POLLIN) != 0) accept_one();
  }
}

}  // namespace pccl::test
