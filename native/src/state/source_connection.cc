#include "state/source_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "transport/socket.h"

namespace pccl {

void SourceConnection::dial(Dial::Request to) {
  PCCL_CHECK(!fd_ && !dial_);
  dial_.emplace(loop_, resolver_, std::move(to),
                Dial::Outcome{.connected = [this](Connection made, const Welcome&) { connected(std::move(made.fd)); },
                              .gave_up = [this](const std::string& reason, Dial::Failure) { broken(reason); },
                              .gone = [this](const Welcome&) { broken("the peer refuses the connection"); }});
}

void SourceConnection::connected(UniqueFd fd) {
  dial_.reset();
  fd_ = std::move(fd);
  watch_ = EventLoop::Watch(loop_, fd_.get(), EPOLLIN, *this);
  owner_.on_opened();
}

void SourceConnection::ask(const Ask& ask) {
  tell(ask.request);
  asked_.push_back(ask);
}

void SourceConnection::tell(const state_wire::Request& request) {
  const auto bytes = state_wire::encode_request(request);
  std::size_t sent = 0;
  if (outgoing_.empty()) {
    // At once: the connection may have no other turn.
    const ssize_t result = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (result > 0) sent = static_cast<std::size_t>(result);
    if (sent < bytes.size()) watch_.set(EPOLLIN | EPOLLOUT);
  }
  outgoing_.insert(outgoing_.end(), bytes.begin() + static_cast<std::ptrdiff_t>(sent), bytes.end());
}

std::deque<SourceConnection::Ask> SourceConnection::close() {
  dial_.reset();
  watch_.reset();
  fd_.reset();
  outgoing_.clear();
  reply_got_ = 0;
  header_.reset();
  payload_got_ = 0;
  return std::exchange(asked_, {});
}

void SourceConnection::on_ready(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) send();
  if (fd_ && (events & ~std::uint32_t{EPOLLOUT}) != 0) receive();
}

void SourceConnection::send() {
  if (outgoing_.empty()) return watch_.set(EPOLLIN);
  const ssize_t result = ::send(fd_.get(), outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL);
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) broken("connection lost: " + errno_text(errno));
    return;
  }
  outgoing_.erase(outgoing_.begin(), outgoing_.begin() + result);
  if (outgoing_.empty()) watch_.set(EPOLLIN);
}

void SourceConnection::receive() {
  const std::uint64_t end = rx_bytes_ + limits::link_turn_bytes;
  while (fd_ && rx_bytes_ < end && receive_once()) {
  }
}

// One read of a reply or of what follows it. False: nothing more to read for now.
bool SourceConnection::receive_once() {
  std::uint8_t* into = reply_.data() + reply_got_;
  std::uint64_t wanted = reply_.size() - reply_got_;
  if (header_) {
    wanted = std::min<std::uint64_t>(header_->bytes - payload_got_, limits::link_turn_bytes);
    into = asked_.front().into == nullptr ? nullptr : asked_.front().into + payload_got_;
    if (into == nullptr) {
      waste_.resize(std::max<std::size_t>(waste_.size(), wanted));
      into = waste_.data();
    }
  }
  const ssize_t result = ::recv(fd_.get(), into, wanted, 0);
  if (result < 0) {
    if (errno == EAGAIN || errno == EINTR) return false;
    broken("connection lost: " + errno_text(errno));
    return false;
  }
  if (result == 0) {
    broken("the peer closed the connection");
    return false;
  }
  const auto got = static_cast<std::uint64_t>(result);
  rx_bytes_ += got;
  if (header_) {
    payload_got_ += got;
  } else {
    reply_got_ += got;
    if (reply_got_ < reply_.size()) return true;
    if (asked_.empty()) {
      broken("the peer answers what it wasn't asked");
      return false;
    }
    header_ = state_wire::decode_reply(reply_, asked_.front().request);
    if (!header_) {
      broken("the peer's answer doesn't fit the question");
      return false;
    }
  }
  if (payload_got_ < header_->bytes) return true;
  const Ask ask = asked_.front();
  asked_.pop_front();
  const bool found = header_->status == state_wire::Status::found;
  reply_got_ = 0;
  header_.reset();
  payload_got_ = 0;
  owner_.on_answer(ask, found);
  return true;
}

void SourceConnection::broken(const std::string& reason) {
  dial_.reset();
  watch_.reset();
  fd_.reset();
  owner_.on_broken(reason);
}

}  // namespace pccl
