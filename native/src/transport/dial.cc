#include "transport/dial.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/limits.h"
#include "transport/local_socket.h"
#include "transport/socket.h"

namespace pccl {
namespace {

// A name that nobody listens at is refused at once; a full queue isn't.
Dial::Failure refused(Path path, int code) {
  return path == Path::shm && code == ECONNREFUSED ? Dial::Failure::nobody : Dial::Failure::passing;
}

}  // namespace

Dial::Dial(EventLoop& loop, Resolver& resolver, Request request, Outcome outcome)
    : loop_(loop), resolver_(resolver), request_(std::move(request)), outcome_(std::move(outcome)) {
  // Never at once, so that whoever dials has the dial in hand when it ends.
  timer_ = EventLoop::Timer(loop_, request_.first_delay, [this] { start(); });
}

void Dial::start() {
  if (request_.path == Path::shm) return connect(local_address(request_.port));
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
  fd_ = start_connect(address, request_.path == Path::tcp ? request_.congestion_control : std::string(), error);
  if (!fd_) return attempt_failed("connect: " + error, refused(request_.path, errno));
  phase_ = Phase::connecting;
  state_ = "connecting";
  if (request_.path == Path::tcp) tune_data_socket(fd_.get(), limits::unacknowledged_timeout);
  watch_ = EventLoop::Watch(loop_, fd_.get(), EPOLLOUT, *this);
  timer_ = EventLoop::Timer(loop_, request_.timeout, [this] { attempt_failed(state_ + ": no answer"); });
}

void Dial::on_ready(std::uint32_t) {
  if (phase_ == Phase::connecting) return greet();
  if (phase_ == Phase::greeting) return read_welcome();
}

void Dial::greet() {
  if (const int code = connect_result(fd_.get())) return attempt_failed("connect: " + errno_text(code), refused(request_.path, code));
  if (!say_hello()) return;
  if (request_.until == Until::hello_sent) return succeed({});
  phase_ = Phase::greeting;
  state_ = "waiting for the peer's welcome";
  welcome_got_ = 0;
  watch_.set(EPOLLIN);
}

// Over shared memory not before it is known that it is for a process of this user.
bool Dial::say_hello() {
  const auto hello = encode_hello(request_.hello);
  ssize_t sent = 0;
  if (request_.path == Path::shm) {
    std::string error;
    if (!local_peer(fd_.get()).same_user) {
      attempt_failed("shared memory: the peer's process belongs to another user", Failure::lasting);
      return false;
    }
    segment_ = ShmSegment::create(error);
    if (segment_ == nullptr) {
      attempt_failed(std::move(error), Failure::lasting);
      return false;
    }
    sent = send_with_descriptor(fd_.get(), hello, segment_->descriptor());
    segment_->forget_descriptor();
  } else {
    sent = ::send(fd_.get(), hello.data(), hello.size(), MSG_NOSIGNAL);
  }
  if (sent != static_cast<ssize_t>(hello.size())) attempt_failed("hello: " + errno_text(errno));
  return sent == static_cast<ssize_t>(hello.size());
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
  if (welcome->status == Welcome::Status::no_memory) {
    return attempt_failed("shared memory: the peer can't use it", Failure::lasting);
  }
  if (segment_) segment_->try_to_read(local_peer(fd_.get()).process);
  succeed(*welcome);
}

void Dial::succeed(const Welcome& welcome) {
  watch_.reset();
  timer_.reset();
  phase_ = Phase::idle;
  // Out of the way first: whoever is called may destroy this.
  const Outcome outcome = std::move(outcome_);
  if (welcome.status == Welcome::Status::gone) return outcome.gone(welcome);
  outcome.connected({std::move(fd_), std::move(segment_)}, welcome);
}

void Dial::attempt_failed(std::string reason, Failure failure) {
  phase_ = Phase::idle;
  state_ = std::move(reason);
  watch_.reset();
  fd_.reset();
  segment_.reset();
  timer_.reset();
  if (next_address_ < addresses_.size()) {
    timer_ = EventLoop::Timer(loop_, EventLoop::Clock::duration::zero(), [this] { start(); });
    return;
  }
  const auto gave_up = std::move(outcome_.gave_up);
  gave_up(std::string(state_), failure);
}

}  // namespace pccl
