#include "transport/tcp_channel.h"

#include <sys/epoll.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "transport/socket.h"

namespace pccl {
namespace {

constexpr auto far_away = std::chrono::milliseconds(4);

}  // namespace

bool TcpChannel::start(EventLoop& loop, Channel::Handler& handler) {
  handler_ = &handler;
  EventLoop::Handler& watcher = *this;
  watch_ = EventLoop::Watch(loop, fd_.get(), EPOLLIN, watcher);
  const auto found = condition();
  if (found && !found->same_machine && found->round_trip >= far_away) limit_unsent(fd_.get());
  return watch_.active();
}

ssize_t TcpChannel::read(std::span<const iovec> into) {
  return ::readv(fd_.get(), into.data(), static_cast<int>(into.size()));
}

ssize_t TcpChannel::write(std::span<const iovec> from) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from.data());
  message.msg_iovlen = from.size();
  return ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
}

std::optional<Channel::Condition> TcpChannel::condition() const {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (::getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return std::nullopt;
  return Condition{std::chrono::microseconds(info.tcpi_min_rtt), same_machine(fd_.get()), info.tcpi_bytes_acked};
}

void TcpChannel::wait_for_room(bool wait) { watch_.set(wait ? EPOLLIN | EPOLLOUT : EPOLLIN); }

void TcpChannel::set_silence(std::chrono::milliseconds silence) { tune_data_socket(fd_.get(), silence); }

void TcpChannel::close() {
  watch_.reset();
  fd_.reset();
}

void TcpChannel::on_ready(std::uint32_t events) {
  handler_->on_channel((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0, (events & EPOLLOUT) != 0);
}

}  // namespace pccl
