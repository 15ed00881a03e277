#include "state/state_fetch.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/limits.h"
#include "hash/xxh3.h"
#include "transport/socket.h"

namespace pccl {

StateFetch::StateFetch(EventLoop& loop, Resolver& resolver, WorkerThread& hasher, Request request, Finished finished)
    : loop_(loop),
      hasher_(hasher),
      request_(std::move(request)),
      finished_(std::move(finished)),
      started_(EventLoop::Clock::now()),
      alive_(std::make_shared<StateFetch*>(this)) {
  for (const FetchTensor& tensor : request_.tensors) {
    state_wire::append_request({tensor.name, tensor.hash, tensor.bytes}, outgoing_);
  }
  progress_.emplace(loop_, limits::state_progress_timeout, [this] {
    fail(dial_ ? dial_->state()
               : "the peer has sent nothing for " +
                     std::to_string(std::chrono::milliseconds(limits::state_progress_timeout).count()) + " ms");
  });
  dial_.emplace(loop_, resolver,
                Dial::Request{.hello = request_.hello,
                              .host = request_.source.host,
                              .port = request_.source.port,
                              .timeout = limits::dial_attempt_timeout},
                Dial::Outcome{.connected = [this](Connection to, const Welcome&) { connected(std::move(to.fd)); },
                              .gave_up = [this](const std::string& reason, Dial::Failure) { fail(reason); },
                              .gone = [this](const Welcome&) { fail("the peer refuses the connection"); }});
}

void StateFetch::connected(UniqueFd fd) {
  dial_.reset();
  fd_ = std::move(fd);
  progress_->note();
  watch_ = EventLoop::Watch(loop_, fd_.get(), EPOLLIN | EPOLLOUT, *this);
}

void StateFetch::on_ready(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) send_requests();
  if (fd_ && (events & ~std::uint32_t{EPOLLOUT}) != 0) receive();
}

void StateFetch::send_requests() {
  const ssize_t result =
      ::send(fd_.get(), outgoing_.data() + outgoing_sent_, outgoing_.size() - outgoing_sent_, MSG_NOSIGNAL);
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) fail("connection lost: " + errno_text(errno));
    return;
  }
  progress_->note();
  outgoing_sent_ += static_cast<std::size_t>(result);
  tx_bytes_ += static_cast<std::uint64_t>(result);
  if (outgoing_sent_ == outgoing_.size()) watch_.set(EPOLLIN);
}

void StateFetch::receive() {
  const std::uint64_t end = rx_bytes_ + limits::link_turn_bytes;
  while (fd_ && rx_bytes_ < end && receive_once()) {
  }
  finish_if_idle();
}

// One read of a reply or of a tensor's bytes. False: nothing more to read for now.
bool StateFetch::receive_once() {
  const bool in_reply = reply_got_ < reply_.size();
  std::uint8_t* const into =
      in_reply ? reply_.data() + reply_got_ : static_cast<std::uint8_t*>(current().into) + tensor_got_;
  const std::size_t wanted = in_reply ? reply_.size() - reply_got_
                                      : std::min<std::uint64_t>(current().bytes - tensor_got_, limits::link_turn_bytes);
  const ssize_t result = ::recv(fd_.get(), into, wanted, 0);
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) fail("connection lost: " + errno_text(errno));
    return false;
  }
  if (result == 0) {
    fail("the peer closed the connection in the middle of tensor " + current().name);
    return false;
  }
  progress_->note();
  const auto got = static_cast<std::size_t>(result);
  if (in_reply) {
    reply_got_ += got;
    if (reply_got_ == reply_.size()) reply_arrived();
  } else {
    tensor_got_ += got;
    rx_bytes_ += got;
    if (tensor_got_ == current().bytes) tensor_arrived();
  }
  return true;
}

void StateFetch::reply_arrived() {
  const auto reply = state_wire::decode_reply(reply_);
  if (!reply) return fail("bad reply for tensor " + current().name);
  if (reply->status != state_wire::Status::found) {
    return fail("the peer exports no tensor " + current().name + " with hash " + to_hex(current().hash));
  }
  if (reply->bytes != current().bytes) return fail("reply of the wrong size for tensor " + current().name);
}

void StateFetch::tensor_arrived() {
  ++hashing_;
  hasher_.post([&loop = loop_, tensor = current(), index = current_, stop = stop_hashing_,
                wanted = std::weak_ptr<StateFetch*>(alive_)] {
    const auto hash = xxh3_128(tensor.into, tensor.bytes, *stop);
    loop.post([wanted, index, hash] {
      if (const auto fetch = wanted.lock()) (*fetch)->verified(index, hash);
    });
  });
  reply_got_ = 0;
  tensor_got_ = 0;
  if (++current_ < request_.tensors.size()) return;
  watch_.reset();
  fd_.reset();
  progress_.reset();
}

void StateFetch::verified(std::size_t index, const std::optional<Hash128>& hash) {
  --hashing_;
  const FetchTensor& tensor = request_.tensors[index];
  if (hash && *hash != tensor.hash) {
    fail("tensor " + tensor.name + " arrived with hash " + to_hex(*hash) + " instead of " + to_hex(tensor.hash));
  }
  finish_if_idle();
}

void StateFetch::fail(const std::string& reason) {
  if (!error_) {
    const std::string message = "fetch_state from peer " + std::to_string(request_.source.id) + " at " +
                                request_.source.host + ":" + std::to_string(request_.source.port) + ": " + reason;
    error_ = Error{ErrorCode::state_fetch_failed, message, request_.source.id};
    *stop_hashing_ = true;
  }
  watch_.reset();
  fd_.reset();
  // A dial or a watch may be the one that calls.
  loop_.defer([wanted = std::weak_ptr<StateFetch*>(alive_)] {
    if (const auto fetch = wanted.lock()) (*fetch)->finish_if_idle();
  });
}

void StateFetch::finish_if_idle() {
  const bool over = error_.has_value() || current_ == request_.tensors.size();
  if (!over || hashing_ > 0 || !finished_) return;
  const std::chrono::duration<double> time = EventLoop::Clock::now() - started_;
  const Finished finished = std::exchange(finished_, nullptr);
  finished(request_.id, {.error = error_, .tx_bytes = tx_bytes_, .rx_bytes = rx_bytes_, .seconds = time.count()});
}

void StateFetch::fail_now(const Error& why) {
  if (!finished_) return;
  const Finished finished = std::exchange(finished_, nullptr);
  finished(request_.id, {.error = Error{why.code, "fetch_state: " + why.message, why.peer},
                         .tx_bytes = tx_bytes_,
                         .rx_bytes = rx_bytes_});
}

}  // namespace pccl
