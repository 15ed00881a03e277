#include "transport/lane.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
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

Lane::Lane(EventLoop& loop, Owner& owner, BufferPool& scratch, Place place, Connection connection, bool usable)
    : loop_(loop),
      owner_(owner),
      scratch_pool_(scratch),
      place_(place),
      channel_(open_channel(std::move(connection))),
      usable_(usable),
      begun_(EventLoop::Clock::now()),
      last_heard_(begun_),
      last_sent_(begun_),
      staging_(staging_bytes) {
  Channel::Handler& handler = *this;
  if (!channel_->start(loop, handler)) fail("the system refuses to watch the connection");
}

void Lane::set_silence(std::chrono::milliseconds silence) {
  if (!ended_) channel_->set_silence(silence);
}

void Lane::send(const Frame& frame) {
  if (ended_) return;
  append_frame(frame, control_);
  wake();
}

void Lane::send_ack() {
  if (ended_) return;
  ack_due_ = true;
  wake();
}

// While the channel takes nothing, nothing is taken from the owner: another lane may be free.
void Lane::wake() {
  if (ended_ || flush_deferred_ || blocked_) return;
  flush_deferred_ = true;
  loop_.defer([this] {
    flush_deferred_ = false;
    flush();
  });
}

void Lane::release(OpId op) {
  if (payload_left_ > 0 && target_.place != Target::Place::dropped && target_.op == op) {
    target_ = {};
    begin_payload();
  }
  std::erase_if(data_, [op](const Sending& sending) { return sending.out.op == op && sending.sent == 0; });
  for (Sending& sending : data_) {
    if (sending.out.op != op || !sending.owned.empty()) continue;
    sending.owned.assign(sending.out.payload, sending.out.payload + sending.out.chunk.body.bytes);
    sending.out.payload = sending.owned.data();
    sending.out.op = 0;
  }
}

void Lane::close() {
  ended_ = true;
  channel_->close();
  target_ = {};
  scratch_pool_.give_back(std::move(scratch_));
}

void Lane::fail(std::string reason, bool violation) {
  if (ended_) return;
  close();
  loop_.defer([this, reason = std::move(reason), violation] { owner_.on_ended(*this, reason, violation); });
}

std::uint64_t Lane::take_carried_bytes() {
  const auto condition = channel_->condition();
  if (!condition) return 0;
  return condition->acknowledged_bytes - std::exchange(carried_bytes_, condition->acknowledged_bytes);
}

bool Lane::acknowledge(std::uint64_t chunks) {
  if (chunks < chunks_acknowledged_ || chunks - chunks_acknowledged_ > unacknowledged_.size()) return false;
  const bool was_full = unacknowledged_.size() >= limits::lane_chunks_unacknowledged_max;
  for (; chunks_acknowledged_ < chunks; ++chunks_acknowledged_) unacknowledged_.pop_front();
  if (was_full) wake();
  return true;
}

std::vector<ChunkId> Lane::unsent() const {
  std::vector<ChunkId> chunks;
  for (const Sending& sending : data_) {
    if (sending.out.op != 0) chunks.push_back(sending.out.chunk);
  }
  return chunks;
}

Lane::Unacknowledged Lane::take_unacknowledged() { return {chunks_acknowledged_, std::exchange(unacknowledged_, {})}; }

void Lane::on_channel(bool readable, bool writable) {
  if (readable) receive();
  if (writable) {
    blocked_ = false;
    flush();
  }
}

void Lane::connection_lost(int code) {
  const bool violation = code == EPROTO;
  fail(violation ? "the peer has broken the rules of shared memory" : "connection lost: " + errno_text(code), violation);
}

void Lane::receive() {
  std::size_t budget = limits::link_turn_bytes;
  while (!ended_ && budget > 0 && receive_once(budget)) {
  }
}

// One read, and what follows from it. False: nothing more to read for now.
bool Lane::receive_once(std::size_t& budget) {
  std::array<iovec, 2> parts;
  std::size_t count = 0;
  std::size_t wanted = 0;
  std::size_t payload_part = 0;
  if (payload_left_ > 0) {
    payload_part = payload_left_;
    parts[count++] = {payload_memory() + (payload_bytes_ - payload_left_), payload_part};
    wanted += payload_part;
  }
  parts[count++] = {staging_.data() + staged_, staging_.size() - staged_};
  wanted += staging_.size() - staged_;

  const ssize_t result = channel_->read({parts.data(), count});
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) connection_lost(errno);
    return false;
  }
  if (result == 0) {
    fail("the peer closed the connection");
    return false;
  }
  last_heard_ = EventLoop::Clock::now();
  const std::size_t got = static_cast<std::size_t>(result);
  budget -= std::min(budget, got);
  const std::size_t of_payload = std::min(got, payload_part);
  staged_ += got - of_payload;
  if (of_payload > 0) payload_arrived(of_payload);
  if (!ended_ && staged_ > 0 && payload_left_ == 0) parse_staged();
  return got == wanted;
}

std::uint8_t* Lane::payload_memory() {
  return target_.place == Target::Place::memory ? target_.memory : scratch_.memory.get();
}

// Gets memory for a payload that has none of its own.
void Lane::begin_payload() {
  if (target_.place == Target::Place::memory || scratch_.memory != nullptr) return;
  scratch_ = scratch_pool_.take(limits::chunk_bytes);
  if (scratch_.memory == nullptr) fail("no memory to receive into");
}

void Lane::payload_arrived(std::size_t bytes) {
  payload_left_ -= static_cast<std::uint32_t>(bytes);
  if (payload_left_ > 0) return;
  ++chunks_received_;
  if (chunks_received_ % limits::chunks_per_ack == 0) send_ack();
  const Target target = std::exchange(target_, {});
  if (target.place == Target::Place::memory) return owner_.on_data_end(*this, data_frame_, target.memory);
  if (target.place == Target::Place::scratch) owner_.on_data_end(*this, data_frame_, scratch_.memory.get());
  scratch_pool_.give_back(std::move(scratch_));
}

void Lane::parse_staged() {
  std::size_t at = 0;
  while (!ended_ && payload_left_ == 0 && staged_ - at >= header_bytes) {
    const std::size_t used = parse_frame(at);
    if (used == 0) break;
    at += used;
  }
  staged_ -= at;
  std::memmove(staging_.data(), staging_.data() + at, staged_);
}

// Bytes of staging used up; 0: the frame isn't there yet as a whole, or is a reason to fail.
std::size_t Lane::parse_frame(std::size_t at) {
  const std::span<const std::uint8_t, header_bytes> header(staging_.data() + at, header_bytes);
  const std::size_t behind = staged_ - at - header_bytes;
  std::string error;
  const auto payload = payload_bytes(header, error);
  if (!payload) {
    fail("bad frame: " + error, true);
    return 0;
  }
  if (!is_data(header) && behind < *payload) {
    staging_.resize(std::max(staging_.size(), header_bytes + *payload));
    return 0;
  }
  const std::span<const std::uint8_t> staged_payload(header.data() + header_bytes,
                                                     std::min<std::size_t>(*payload, behind));
  const auto frame = decode_frame(header, staged_payload, error);
  if (!frame) {
    fail("bad frame: " + error, true);
    return 0;
  }
  if (!std::holds_alternative<DataBody>(frame->body)) {
    owner_.on_frame(*this, *frame);
    return header_bytes + *payload;
  }
  data_frame_ = *frame;
  payload_bytes_ = payload_left_ = *payload;
  target_ = owner_.on_data(*this, data_frame_);
  if (!ended_) begin_payload();
  if (ended_) return 0;
  std::memcpy(payload_memory(), staged_payload.data(), staged_payload.size());
  if (!staged_payload.empty()) payload_arrived(staged_payload.size());
  return header_bytes + staged_payload.size();
}

void Lane::pull_data() {
  std::size_t ahead = 0;
  for (const Sending& sending : data_) ahead += sending.total() - sending.sent;
  while (data_.size() < chunks_ahead_max && ahead < bytes_ahead_max &&
         unacknowledged_.size() < limits::lane_chunks_unacknowledged_max) {
    const auto next = owner_.next_data(*this);
    if (!next) return;
    ahead += header_bytes + next->chunk.body.bytes;
    data_.push_back({*next, data_header(next->chunk), 0, {}});
  }
}

// What it says is counted when it goes, so one that waits is enough. It goes before the frames that wait: on a lane
// that takes the place of another these are all that the other side may have had long since, and so may its own be.
void Lane::append_ack() {
  if (!ack_due_ || control_sent_ > 0) return;
  ack_due_ = false;
  std::vector<std::uint8_t> ack;
  append_frame({0, {}, AckBody{chunks_received_, owner_.frames_received()}}, ack);
  // One that the channel didn't take yet is outdated, and must not come behind the newer one.
  if (std::exchange(ack_first_, true)) control_.erase(control_.begin(), control_.begin() + header_bytes);
  control_.insert(control_.begin(), ack.begin(), ack.end());
}

void Lane::flush() {
  std::size_t budget = limits::link_turn_bytes;
  while (!ended_ && !blocked_ && budget > 0) {
    append_ack();
    pull_data();
    if (nothing_to_send()) break;
    blocked_ = !write_once(budget);
  }
  if (ended_) return;
  if (budget == 0 && !blocked_) pull_data();  // what is left keeps the lane waiting for its next turn
  channel_->wait_for_room(!nothing_to_send());
}

// One write. False: the channel takes no more for now.
bool Lane::write_once(std::size_t& budget) {
  std::array<iovec, 2 * chunks_ahead_max + 1> parts;
  std::size_t count = 0;
  std::size_t offered = 0;
  const auto add = [&](const std::uint8_t* from, std::size_t bytes) {
    parts[count++] = {const_cast<std::uint8_t*>(from), bytes};
    offered += bytes;
  };
  const auto add_data = [&](const Sending& sending) {
    const std::size_t of_header = std::min(sending.sent, header_bytes);
    if (of_header < header_bytes) add(sending.header.data() + of_header, header_bytes - of_header);
    const std::size_t of_payload = sending.sent - of_header;
    const std::size_t bytes = sending.out.chunk.body.bytes;
    if (of_payload < bytes) add(sending.out.payload + of_payload, bytes - of_payload);
  };
  // A chunk that has begun goes on; then what is short and others may wait for; then the other chunks.
  auto chunk = data_.begin();
  if (chunk != data_.end() && chunk->sent > 0) add_data(*chunk++);
  if (control_sent_ < control_.size()) add(control_.data() + control_sent_, control_.size() - control_sent_);
  for (; chunk != data_.end(); ++chunk) add_data(*chunk);

  const ssize_t result = channel_->write({parts.data(), count});
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) connection_lost(errno);
    return false;
  }
  last_sent_ = EventLoop::Clock::now();
  const std::size_t sent = static_cast<std::size_t>(result);
  budget -= std::min(budget, sent);
  written(sent);
  return sent == offered;
}

void Lane::written(std::size_t bytes) {
  const auto take_data = [&] {
    Sending& sending = data_.front();
    const std::size_t part = std::min(bytes, sending.total() - sending.sent);
    sending.sent += part;
    bytes -= part;
    if (sending.sent < sending.total()) return;
    unacknowledged_.push_back(sending.out.chunk);
    data_.pop_front();
  };
  if (!data_.empty() && data_.front().sent > 0) take_data();
  const std::size_t control_part = std::min(bytes, control_.size() - control_sent_);
  control_sent_ += control_part;
  if (control_part > 0) ack_first_ = false;
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
    take_data();
  }
}

}  // namespace pccl
