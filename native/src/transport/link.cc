#include "transport/link.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "transport/socket.h"

namespace pccl {
namespace {

// Takes the frames of small ops in one read; behind a chunk's payload it catches the next header.
constexpr std::size_t staging_bytes = 8 * 1024;
// Chunks taken from the owner ahead of their turn: enough to join short ones in one write.
constexpr std::size_t chunks_ahead_max = 8;
constexpr std::size_t bytes_ahead_max = 128 * 1024;
constexpr std::size_t control_trim_bytes = 64 * 1024;

}  // namespace

void Link::Free::operator()(std::uint8_t* memory) const { std::free(memory); }

Link::Link(EventLoop& loop, Owner& owner, PeerId peer, UniqueFd fd)
    : loop_(loop),
      owner_(owner),
      peer_(peer),
      fd_(std::move(fd)),
      watch_(loop, fd_.get(), EPOLLIN, *this),
      staging_(staging_bytes),
      scratch_(static_cast<std::uint8_t*>(std::aligned_alloc(64, limits::chunk_bytes))) {
  if (scratch_ == nullptr || !watch_.active()) fail("the system refuses memory for the link");
}

void Link::send(const Frame& frame) {
  if (broken_) return;
  if (control_.size() - control_sent_ > limits::unsent_control_bytes_max) {
    return fail("the peer reads nothing while frames for it pile up");
  }
  append_frame(frame, control_);
  wake();
}

void Link::wake() {
  if (broken_ || flush_deferred_) return;
  flush_deferred_ = true;
  loop_.defer([this] {
    flush_deferred_ = false;
    flush();
  });
}

void Link::release(OpId op) {
  if (payload_left_ > 0 && target_.op == op) target_ = {};
  std::erase_if(data_, [op](const Sending& sending) { return sending.frame.op == op && sending.sent == 0; });
  for (Sending& sending : data_) {
    if (sending.frame.op != op || !sending.owned.empty()) continue;
    sending.owned.assign(sending.frame.payload, sending.frame.payload + sending.frame.bytes);
    sending.frame.payload = sending.owned.data();
    sending.frame.op = 0;
  }
}

void Link::close() {
  broken_ = true;
  watch_.reset();
  fd_.reset();
  target_ = {};
  data_.clear();
}

void Link::fail(std::string reason) {
  if (broken_) return;
  close();
  loop_.defer([this, reason = std::move(reason)] { owner_.on_broken(*this, reason); });
}

void Link::on_ready(std::uint32_t events) {
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) receive();
  if ((events & EPOLLOUT) != 0) flush();
}

void Link::receive() {
  std::size_t budget = limits::link_turn_bytes;
  while (!broken_ && budget > 0 && receive_once(budget)) {
  }
}

// One read, and what follows from it. False: nothing more to read for now.
bool Link::receive_once(std::size_t& budget) {
  std::array<iovec, 2> parts;
  std::size_t count = 0;
  std::size_t wanted = 0;
  std::size_t payload_part = 0;
  if (payload_left_ > 0) {
    std::uint8_t* const into =
        target_.into != nullptr ? target_.into + (payload_bytes_ - payload_left_) : scratch_.get();
    payload_part = payload_left_;
    parts[count++] = {into, payload_part};
    wanted += payload_part;
  }
  parts[count++] = {staging_.data() + staged_, staging_.size() - staged_};
  wanted += staging_.size() - staged_;

  const ssize_t result = ::readv(fd_.get(), parts.data(), static_cast<int>(count));
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) fail("connection lost: " + errno_text(errno));
    return false;
  }
  if (result == 0) {
    fail("the peer closed the connection");
    return false;
  }
  const std::size_t got = static_cast<std::size_t>(result);
  budget -= std::min(budget, got);
  const std::size_t of_payload = std::min(got, payload_part);
  staged_ += got - of_payload;
  if (of_payload > 0) payload_arrived(of_payload);
  if (!broken_ && staged_ > 0 && payload_left_ == 0) parse_staged();
  return got == wanted;
}

void Link::payload_arrived(std::size_t bytes) {
  payload_left_ -= static_cast<std::uint32_t>(bytes);
  if (payload_left_ > 0 || target_.into == nullptr) return;
  const Target target = std::exchange(target_, {});
  owner_.on_data_end(*this, data_frame_, target.into);
}

void Link::parse_staged() {
  std::size_t at = 0;
  while (!broken_ && payload_left_ == 0 && staged_ - at >= header_bytes) {
    const std::size_t used = parse_frame(at);
    if (used == 0) break;
    at += used;
  }
  staged_ -= at;
  std::memmove(staging_.data(), staging_.data() + at, staged_);
}

// Bytes of staging used up; 0: the frame isn't there yet as a whole, or is a reason to fail.
std::size_t Link::parse_frame(std::size_t at) {
  const std::span<const std::uint8_t, header_bytes> header(staging_.data() + at, header_bytes);
  const std::size_t behind = staged_ - at - header_bytes;
  std::string error;
  const auto payload = payload_bytes(header, error);
  if (!payload) {
    fail("bad frame: " + error);
    return 0;
  }
  if (*payload <= control_payload_bytes_max && behind < *payload) return 0;
  const std::span<const std::uint8_t> staged_payload(header.data() + header_bytes,
                                                     std::min<std::size_t>(*payload, behind));
  const auto frame = decode_frame(header, staged_payload, error);
  if (!frame) {
    fail("bad frame: " + error);
    return 0;
  }
  if (!std::holds_alternative<DataBody>(frame->body)) {
    owner_.on_control(*this, *frame);
    return header_bytes + *payload;
  }
  data_frame_ = *frame;
  payload_bytes_ = payload_left_ = *payload;
  target_ = owner_.on_data(*this, data_frame_);
  if (broken_) return 0;
  if (target_.into != nullptr) std::memcpy(target_.into, staged_payload.data(), staged_payload.size());
  if (!staged_payload.empty()) payload_arrived(staged_payload.size());
  return header_bytes + staged_payload.size();
}

void Link::pull_data() {
  std::size_t ahead = 0;
  for (const Sending& sending : data_) ahead += sending.total() - sending.sent;
  while (data_.size() < chunks_ahead_max && ahead < bytes_ahead_max) {
    const auto next = owner_.next_data(*this);
    if (!next) return;
    ahead += header_bytes + next->bytes;
    data_.push_back({*next, 0, {}});
  }
}

void Link::flush() {
  std::size_t budget = limits::link_turn_bytes;
  bool writable = true;
  while (!broken_ && writable && budget > 0) {
    pull_data();
    if (nothing_to_send()) break;
    writable = write_once(budget);
  }
  if (broken_) return;
  if (budget == 0) pull_data();  // what is left keeps the link waiting for its next turn
  watch_.set(nothing_to_send() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

// One write. False: the socket takes no more for now.
bool Link::write_once(std::size_t& budget) {
  std::array<iovec, 2 * chunks_ahead_max + 1> parts;
  std::size_t count = 0;
  std::size_t offered = 0;
  const auto add = [&](const std::uint8_t* from, std::size_t bytes) {
    parts[count++] = {const_cast<std::uint8_t*>(from), bytes};
    offered += bytes;
  };
  const auto add_data = [&](const Sending& sending) {
    const std::size_t of_header = std::min(sending.sent, header_bytes);
    if (of_header < header_bytes) add(sending.frame.header.data() + of_header, header_bytes - of_header);
    const std::size_t of_payload = sending.sent - of_header;
    if (of_payload < sending.frame.bytes) add(sending.frame.payload + of_payload, sending.frame.bytes - of_payload);
  };
  // A chunk that has begun goes on; then what is short and others may wait for; then the other chunks.
  auto chunk = data_.begin();
  if (chunk != data_.end() && chunk->sent > 0) add_data(*chunk++);
  if (control_sent_ < control_.size()) add(control_.data() + control_sent_, control_.size() - control_sent_);
  for (; chunk != data_.end(); ++chunk) add_data(*chunk);

  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t result = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) fail("connection lost: " + errno_text(errno));
    return false;
  }
  const std::size_t sent = static_cast<std::size_t>(result);
  budget -= std::min(budget, sent);
  written(sent);
  return sent == offered;
}

void Link::written(std::size_t bytes) {
  const auto take_data = [&](Sending& sending) {
    const std::size_t part = std::min(bytes, sending.total() - sending.sent);
    sending.sent += part;
    bytes -= part;
    return sending.sent == sending.total();
  };
  if (!data_.empty() && data_.front().sent > 0 && take_data(data_.front())) data_.pop_front();
  const std::size_t control_part = std::min(bytes, control_.size() - control_sent_);
  control_sent_ += control_part;
  bytes -= control_part;
  if (control_sent_ == control_.size()) {
    control_.clear();
    control_sent_ = 0;
  } else if (control_sent_ >= control_trim_bytes) {
    control_.erase(control_.begin(), control_.begin() + static_cast<std::ptrdiff_t>(control_sent_));
    control_sent_ = 0;
  }
  while (bytes > 0) {
    PCCL_CHECK(!data_.empty());
    if (take_data(data_.front())) data_.pop_front();
  }
}

}  // namespace pccl
