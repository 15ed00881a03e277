#include "probe/probe_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "probe/probe_wire.h"

namespace pccl {

ProbeServer::Visitor::Visitor(ProbeServer& of, UniqueFd connection)
    : server(of),
      fd(std::move(connection)),
      watch(of.loop_, fd.get(), EPOLLIN, *this),
      patience(of.loop_, limits::probe_visit_max, [this] { server.visitors_.erase(self); }) {}

void ProbeServer::add(UniqueFd fd) {
  Visitor& visitor = visitors_.emplace_back(*this, std::move(fd));
  visitor.self = std::prev(visitors_.end());
}

void ProbeServer::on_ready(Visitor& visitor, std::uint32_t events) {
  bool alive = true;
  if (visitor.phase == Visitor::Phase::pings) {
    alive = answer(visitor);
  } else {
    // Who streams hears nothing but the end.
    if ((events & ~std::uint32_t{EPOLLOUT}) != 0) alive = probe_wire::throw_away(visitor.fd.get()) >= 0;
    if (alive && (events & EPOLLOUT) != 0) alive = probe_wire::send_noise(visitor.fd.get()) >= 0;
  }
  if (!alive) return void(visitors_.erase(visitor.self));
  if (visitor.phase == Visitor::Phase::streams) visitor.watch.set(EPOLLIN | EPOLLOUT);
}

bool ProbeServer::answer(Visitor& visitor) {
  std::uint8_t byte = 0;
  const ssize_t got = ::recv(visitor.fd.get(), &byte, 1, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  switch (byte) {
    case probe_wire::ping:
      return ::send(visitor.fd.get(), &byte, 1, MSG_NOSIGNAL) == 1;
    case probe_wire::stream_to_you:
      visitor.phase = Visitor::Phase::takes;
      return true;
    case probe_wire::stream_to_me:
      visitor.phase = Visitor::Phase::streams;
      return true;
    default:
      return false;
  }
}

}  // namespace pccl
