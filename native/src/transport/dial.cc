#include "transport/dial.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/limits.h"
#include "transport/socket.h"

namespace pccl {

Dial::Dial(EventLoop& loop, Resolver& resolver, Request request, Outcome outcome)
    : loop_(loop), resolver_(resolver), request_(std::move(request)), outcome_(std::move(outcome)) {
  // Never at once, so that whoever dials has the dial in hand when it ends.
  timer_ = EventLoop::Timer(loop_, request_.first_delay, [this] { start(); });
}

void Dial::start() {
  if (next_address_ < addresses_.size()) return connect(addresses_[next_address_++]);
  if (const auto address = numeric_address(request_.host, request_.port)) {
    addresses_ = {*address};
    next_address_ = 1;
    return connect(*address);
  }
  state_ = "looking up host name " + request_.host;
  ticket_ = resolver_.resolve(request_.host, request_.port, [this](std::vector<Address> addresses, std::string error) {
    addresses_ = std::move(addresses);
    next_address_ = 0;
    if (addresses_.empty()) return attempt_failed(std::move(error));
    connect(addresses_[next_address_++]);
  });
}

void Dial::connect(const Address& address) {
  std::string error;
  fd_ = start_connect(address, error);
  if (!fd_) return attempt_failed("connect: " + error);
  phase_ = Phase::connecting;
  state_ = "connecting";
  tune_data_socket(fd_.get(), limits::unacknowledged_timeout);
  watch_ = EventLoop::Watch(loop_, fd_.get(), EPOLLOUT, *this);
  timer_ = EventLoop::Timer(loop_, request_.timeout, [this] { attempt_failed(state_ + ": no answer"); });
}

void Dial::on_ready(std::uint32_t) {
  if (phase_ == Phase::connecting) return greet();
  if (phase_ == Phase::greeting) return read_welcome();
}

void Dial::greet() {
  if (const int code = connect_result(fd_.get())) return attempt_failed("connect: " + errno_text(code));
  const auto hello = encode_hello(request_.hello);
  if (::send(fd_.get(), hello.data(), hello.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(hello.size())) {
    return attempt_failed("hello: " + errno_text(errno));
  }
  if (request_.until == Until::hello_sent) return succeed({});
  phase_ = Phase::greeting;
  state_ = "waiting for the peer's welcome";
  welcome_got_ = 0;
  watch_.set(EPOLLIN);
}

void Dial::read_welcome() {
  const ssize_t result = ::recv(fd_.get(), welcome_.data() + welcome_got_, welcome_.size() - welcome_got_, 0);
  if (result < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (result < 0) return attempt_failed("welcome: " + errno_text(errno));
  if (result == 0) return attempt_failed("turned away: the peer doesn't expect this connection");
  welcome_got_ += static_cast<std::size_t>(result);
  if (welcome_got_ < welcome_.size()) return;
  const auto welcome = decode_welcome(welcome_);
  if (!welcome) return attempt_failed("what listens there is no peer of this version");
  succeed(*welcome);
}

void Dial::succeed(const Welcome& welcome) {
  watch_.reset();
  timer_.reset();
  phase_ = Phase::idle;
  // Out of the way first: whoever is called may destroy this.
  const Outcome outcome = std::move(outcome_);
  if (welcome.status == Welcome::Status::gone) return outcome.gone(welcome);
  outcome.connected(std::move(fd_), welcome);
}

void Dial::attempt_failed(std::string reason) {
  phase_ = Phase::idle;
  state_ = std::move(reason);
  watch_.reset();
  fd_.reset();
  timer_.reset();
  if (next_address_ < addresses_.size()) {
    timer_ = EventLoop::Timer(loop_, EventLoop::Clock::duration::zero(), [this] { start(); });
    return;
  }
  const auto gave_up = std::move(outcome_.gave_up);
  gave_up(std::string(state_));
}

}  // namespace pccl
