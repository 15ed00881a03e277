#include "transport/acceptor.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "transport/local_socket.h"
#include "transport/socket.h"

namespace pccl {
namespace {

constexpr int accepts_per_turn = 16;
// When the process is out of descriptors, an accept can only fail; the queue waits in the kernel meanwhile.
constexpr auto accept_pause = std::chrono::milliseconds(100);

}  // namespace

Acceptor::Acceptor(EventLoop& loop, Owner& owner, UniqueFd listener, Path path)
    : loop_(loop),
      owner_(owner),
      listener_(std::move(listener)),
      path_(path),
      watch_(loop, listener_.get(), EPOLLIN, *this) {}

void Acceptor::on_ready(std::uint32_t) {
  for (int i = 0; i < accepts_per_turn; ++i) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if (errno != EAGAIN) pause();
      return;
    }
    add(std::move(fd));
  }
}

void Acceptor::pause() {
  watch_.set(0);
  resume_ = EventLoop::Timer(loop_, accept_pause, [this] { watch_.set(EPOLLIN); });
}

void Acceptor::add(UniqueFd fd) {
  if (path_ == Path::shm && !local_peer(fd.get()).same_user) return;
  // The oldest goes: a flood of silent strangers can't keep a peer that speaks at once outside.
  if (strangers_.size() >= limits::strangers_max) strangers_.pop_front();
  if (path_ == Path::tcp) tune_data_socket(fd.get(), limits::unacknowledged_timeout);
  Stranger& stranger = strangers_.emplace_back(*this);
  stranger.self = std::prev(strangers_.end());
  stranger.fd = std::move(fd);
  stranger.watch = EventLoop::Watch(loop_, stranger.fd.get(), EPOLLIN, stranger);
  stranger.timeout =
      EventLoop::Timer(loop_, limits::hello_timeout, [this, self = stranger.self] { strangers_.erase(self); });
}

void Acceptor::on_stranger(Stranger& stranger, std::uint32_t events) {
  if (stranger.hello) {
    // It must stay silent until it is welcome, so this is its end.
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) strangers_.erase(stranger.self);
    return;
  }
  const ssize_t result = receive_with_descriptor(stranger.fd.get(), std::span(stranger.bytes).subspan(stranger.got),
                                                 stranger.memory);
  if (result < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (result <= 0) {
    strangers_.erase(stranger.self);
    return;
  }
  stranger.got += static_cast<std::size_t>(result);
  if (stranger.got < stranger.bytes.size()) return;
  stranger.hello = decode_hello(stranger.bytes);
  if (!stranger.hello) {
    strangers_.erase(stranger.self);
    return;
  }
  stranger.watch.set(EPOLLRDHUP);
  stranger.timeout =
      EventLoop::Timer(loop_, limits::early_hello_timeout, [this, self = stranger.self] { strangers_.erase(self); });
  judge(stranger);
}

void Acceptor::judge(Stranger& stranger) {
  const Hello hello = *stranger.hello;
  const Judgement judgement = owner_.judge(hello, path_);
  if (judgement == Judgement::wait) return;
  stranger.watch.reset();
  UniqueFd fd = std::move(stranger.fd);
  UniqueFd memory = std::move(stranger.memory);
  strangers_.erase(stranger.self);
  if (judgement == Judgement::refuse) return;
  if (judgement == Judgement::forward) return owner_.forward(hello, std::move(fd));
  Welcome answer = owner_.welcome(hello);
  if (judgement == Judgement::gone) answer.status = Welcome::Status::gone;
  std::unique_ptr<ShmSegment> segment;
  if (path_ == Path::shm && judgement == Judgement::accept) {
    std::string error;
    segment = ShmSegment::adopt(std::move(memory), error);
    if (segment) {
      segment->try_to_read(local_peer(fd.get()).process);
    } else {
      answer.status = Welcome::Status::no_memory;
    }
  }
  const auto welcome = encode_welcome(answer);
  // The first bytes on a connection always fit into its buffer.
  if (::send(fd.get(), welcome.data(), welcome.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(welcome.size())) return;
  if (answer.status == Welcome::Status::welcome) owner_.accepted(hello, {std::move(fd), std::move(segment)});
}

void Acceptor::judge_waiting() {
  for (auto at = strangers_.begin(); at != strangers_.end();) {
    Stranger& stranger = *at++;
    if (stranger.hello) judge(stranger);
  }
}

}  // namespace pccl
