#include "transport/link.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace pccl {
namespace {

// Of `silence`: how often it is looked after, and when a ping is due.
constexpr int watches_per_silence = 10;
constexpr int pings_per_silence = 5;

std::string in_ms(std::chrono::milliseconds time) { return std::to_string(time.count()) + " ms"; }

}  // namespace

Link::Link(const Context& context, LinkId id, const Settings& settings)
    : loop_(context.loop),
      scratch_(context.scratch),
      owner_(context.owner),
      peer_(settings.target.hello.to),
      id_(id),
      silence_(settings.silence),
      lower_(settings.target.hello.from < peer_),
      tcp_allowed_(settings.tcp_allowed),
      impossible_(settings.impossible),
      path_(settings.target.path),
      pinned_(settings.target.hello.lanes),
      tuner_(context.loop, *this),
      dials_(context.loop, context.resolver, *this, {}),
      last_heard_(EventLoop::Clock::now()),
      last_watch_(last_heard_) {
  set(settings);
  dials_.set_timeout(limits::dial_attempt_timeout);
  fill_slots();
}

bool Link::established() const {
  return established_ ||
         std::any_of(lanes_.begin(), lanes_.end(), [](const Slot& slot) { return slot.lane != nullptr; });
}

std::optional<pid_t> Link::readable_process() const {
  if (control_lane_ == nullptr) return std::nullopt;
  return control_lane_->channel().readable_process();
}

void Link::give_up_reading() {
  for (const Slot& slot : lanes_) {
    if (slot.lane) slot.lane->give_up_reading();
  }
}

void Link::settle() {
  if (std::exchange(established_, true)) return;
  dials_.set_timeout(std::clamp<EventLoop::Clock::duration>(silence_ / 2, limits::redial_attempt_timeout_min,
                                                            limits::dial_attempt_timeout));
}

void Link::set(const Settings& settings) {
  if (silence_ != settings.silence) {
    silence_ = settings.silence;
    // What went by under the other rule isn't held against the peer.
    heard_at_least(EventLoop::Clock::now());
    for (const Slot& slot : lanes_) {
      if (!slot.lane) continue;
      slot.lane->set_silence(silence_);
      slot.lane->heard_at_least(last_heard_);
    }
  }
  target_ = settings.target;
  target_.path = path_;
  target_.hello.link = id_;
  dials_.set_target(target_);
  watch_silence();
}

std::uint32_t Link::lanes_wanted() const {
  if (path_ == Path::shm) return 1;
  if (!adaptive()) return std::max(pinned_, peer_pinned_);
  return std::max(tuner_.wanted(), peer_wanted_);
}

void Link::fill_slots() {
  if (lanes_.size() < lanes_wanted()) lanes_.resize(lanes_wanted());
  if (!impossible_.empty()) return;
  for (std::uint32_t slot = 0; slot < lanes_.size(); ++slot) {
    if (wants(slot)) dials_.start(slot, lower_ ? EventLoop::Clock::duration{} : limits::dial_head_start);
  }
}

void Link::peer_wants(std::uint32_t pinned) {
  peer_pinned_ = pinned;
  fill_slots();
}

// The first lane tells what kind of link it is.
void Link::tune(const Lane& lane) {
  if (!adaptive() || tuner_.begun()) return;
  const auto condition = lane.channel().condition();
  if (!condition) return;
  tuner_.begin(condition->round_trip, condition->same_machine);
  number_changed();
}

LaneTuner::Carried Link::take_carried() {
  LaneTuner::Carried carried;
  for (const Slot& slot : lanes_) {
    if (!slot.lane || !slot.lane->usable()) continue;
    ++carried.up;
    carried.bytes += slot.lane->take_carried_bytes();
  }
  return carried;
}

void Link::number_changed() {
  if (broken_ || !adaptive()) return;
  if (tuner_.wanted() != told_wanted_) {
    told_wanted_ = tuner_.wanted();
    send({0, {}, LanesBody{told_wanted_}});
    told_number_ = sent_;
  }
  fill_slots();
  wake();
}

// The other side must know that they are not needed, or it would dial them again.
void Link::retire_lanes() {
  if (path_ == Path::shm || sent_ - kept_.size() < told_number_) return;
  for (std::uint32_t slot = lanes_wanted(); slot < lanes_.size(); ++slot) {
    if (lanes_[slot].lane && lanes_[slot].lane->usable() && lanes_[slot].lane->at_rest()) {
      end_lane(slot, "there are more connections than are needed");
    }
  }
}

bool Link::may_send_on(const Lane& lane) const {
  if (!adaptive() || path_ == Path::shm) return true;
  std::uint32_t before = 0;
  for (std::uint32_t slot = 0; slot < lane.place().slot; ++slot) {
    if (lanes_[slot].lane && lanes_[slot].lane->usable()) ++before;
  }
  return before < tuner_.used();
}

std::uint64_t Link::taken_version(std::uint32_t slot) const { return slot < lanes_.size() ? lanes_[slot].version : 0; }

bool Link::expects(const Hello& hello, Path path) const {
  const bool on_path = path == Path::shm ? path_ == Path::shm && hello.slot == 0 : tcp_allowed_;
  const bool on_bundle = pinned_ == 0 && hello.lanes == 0 ? hello.slot < limits::adaptive_connections_max
                                                          : hello.slot < std::max(pinned_, hello.lanes);
  return !broken_ && on_path && on_bundle && hello.lane_version() > taken_version(hello.slot);
}

void Link::add(const Hello& hello, Connection connection) {
  if (connection.path() != path_) fall_back_to_tcp();
  // It dials what its frame tells it to want, which may come later.
  peer_wanted_ = std::max(peer_wanted_, hello.slot + 1);
  peer_wants(hello.lanes);
  put(hello, std::move(connection), false);
}

void Link::fall_back_to_tcp() {
  path_ = target_.path = Path::tcp;
  dials_.set_target(target_);
  fill_slots();
}

void Link::cannot_dial(Dial::Failure failure) {
  // The peer's connection may have filled the slot meanwhile.
  if (path_ != Path::shm || !wants(0)) return;
  if (established_ && failure == Dial::Failure::nobody) return fail(last_end_ + "; the peer's process has ended");
  if (tcp_allowed_) fall_back_to_tcp();
}

void Link::dialled(const Hello& hello, Connection connection, const Welcome& welcome) {
  peer_wants(welcome.lanes);
  if (hello.lane_version() > taken_version(hello.slot)) return put(hello, std::move(connection), true);
  // The peer has dialled too, and its connection counts, if it still is.
  if (wants(hello.slot)) dials_.start(hello.slot, limits::dial_retry_delay_min);
}

// The side that has dialled knows, by the Welcome, that the other one has taken the connection, and its first frame
// tells that one. Neither sends on a lane that the other might not know.
void Link::put(const Hello& hello, Connection connection, bool usable) {
  Slot& slot = lanes_[hello.slot];
  if (slot.lane) end_lane(hello.slot, "replaced by a later connection");
  const Lane::Place place{hello.slot, hello.lane_version()};
  slot.version = place.version;
  Lane::Owner& owner = *this;
  slot.lane = std::make_unique<Lane>(loop_, owner, scratch_, place, std::move(connection), usable);
  slot.lane->set_silence(silence_);
  dials_.filled(hello.slot);
  heard_at_least(EventLoop::Clock::now());
  if (!usable) return;
  lane_usable(*slot.lane);
}

void Link::lane_usable(Lane& lane) {
  lane.set_usable();
  lane.send_ack();
  const bool was_up = up();
  if (!was_up) choose_control_lane();
  settle();
  tune(lane);
  lane.wake();
  if (!was_up) owner_.on_up(*this);
}

// What the peer hasn't acknowledged goes again, in order: its first number can't be above the one that the peer
// expects, so nothing is missing on the lane.
void Link::choose_control_lane() {
  control_lane_ = nullptr;
  for (const Slot& slot : lanes_) {
    if (!slot.lane || !slot.lane->usable()) continue;
    control_lane_ = slot.lane.get();
    break;
  }
  if (control_lane_ == nullptr) return;
  for (const Frame& frame : kept_) control_lane_->send(frame);
}

void Link::end_lane(std::uint32_t slot, const std::string& reason) {
  const std::shared_ptr<Lane> lane = std::move(lanes_[slot].lane);
  const Lane::Place place = lane->place();
  lane->close();
  last_end_ = reason;
  heard_at_least(lane->last_heard());
  if (control_lane_ == lane.get()) choose_control_lane();
  send({0, {}, OverBody{place.slot, place.version, lane->chunks_received()}});
  for (const ChunkId& chunk : lane->unsent()) owner_.on_unsent(*this, chunk);
  Lane::Unacknowledged in_doubt = lane->take_unacknowledged();
  if (!in_doubt.chunks.empty()) in_doubt_.emplace(LaneKey{place.slot, place.version}, std::move(in_doubt));
  // A peer that takes connections only to end them isn't dialled without pause.
  const bool lived = EventLoop::Clock::now() - lane->begun() > limits::dial_retry_delay_max;
  if (wants(slot)) dials_.start(slot, lived ? EventLoop::Clock::duration{} : limits::dial_retry_delay_min);
  // It may be in the middle of a call that led here, so it goes when that has returned.
  loop_.defer([lane] {});
}

void Link::send(const Frame& frame) {
  if (broken_) return;
  if (kept_.size() >= limits::link_frames_unacknowledged_max) {
    return fail("the peer acknowledges nothing while frames for it pile up");
  }
  kept_.push_back(frame);
  kept_.back().number = ++sent_;
  if (control_lane_ != nullptr) control_lane_->send(kept_.back());
}

void Link::wake() {
  for (const Slot& slot : lanes_) {
    if (slot.lane && slot.lane->usable()) slot.lane->wake();
  }
}

void Link::release(OpId op) {
  for (const Slot& slot : lanes_) {
    if (slot.lane) slot.lane->release(op);
  }
}

void Link::close() {
  broken_ = true;
  control_lane_ = nullptr;
  dials_.stop();
  watch_.reset();
  for (const Slot& slot : lanes_) {
    if (slot.lane) slot.lane->close();
  }
}

void Link::fail(std::string reason) {
  if (broken_) return;
  close();
  loop_.defer([this, reason = std::move(reason)] { owner_.on_broken(*this, reason); });
}

void Link::on_frame(Lane& lane, const Frame& frame) {
  if (!lane.usable()) lane_usable(lane);
  if (const auto* ack = std::get_if<AckBody>(&frame.body)) return on_ack(lane, *ack);
  if (frame.number <= received_) return;  // it came on another lane before
  if (frame.number != received_ + 1) return fail("a numbered frame is missing");
  ++received_;
  const auto* const ready = std::get_if<ReadyBody>(&frame.body);
  if (ready != nullptr && ready->payload) unacknowledged_payload_bytes_ += ready->payload->size();
  if (received_ % limits::frames_per_ack == 0 || unacknowledged_payload_bytes_ >= limits::payload_bytes_per_ack) {
    unacknowledged_payload_bytes_ = 0;
    lane.send_ack();
  }
  if (const auto* over = std::get_if<OverBody>(&frame.body)) return on_over(*over);
  if (const auto* lanes = std::get_if<LanesBody>(&frame.body)) {
    peer_wanted_ = lanes->count;
    return fill_slots();
  }
  owner_.on_control(*this, frame);
}

void Link::on_ack(Lane& lane, const AckBody& ack) {
  if (ack.frames > sent_ || !lane.acknowledge(ack.chunks)) return fail("an ack of what wasn't sent");
  while (sent_ - kept_.size() < ack.frames) kept_.pop_front();
}

// Why a chunk that is sent again still has its bytes: what overwrites a chunk that was sent is the final value of
// the same elements, which is made from it, and so from the very chunk that the peer must have received whole. The
// peer counted it then. And until an op has committed its memory stays with it.
void Link::on_over(const OverBody& over) {
  if (over.slot < lanes_.size() && lanes_[over.slot].lane && lanes_[over.slot].version == over.version) {
    end_lane(over.slot, "the peer has ended the connection");
  }
  const auto found = in_doubt_.find({over.slot, over.version});
  if (found == in_doubt_.end()) return;
  const Lane::Unacknowledged in_doubt = std::move(found->second);
  in_doubt_.erase(found);
  if (over.chunks < in_doubt.first || over.chunks - in_doubt.first > in_doubt.chunks.size()) {
    return fail("the peer has counted chunks that weren't sent, or lost some");
  }
  const auto received = static_cast<std::ptrdiff_t>(over.chunks - in_doubt.first);
  for (auto chunk = in_doubt.chunks.begin() + received; chunk != in_doubt.chunks.end(); ++chunk) {
    owner_.on_unsent(*this, *chunk);
  }
}

Lane::Target Link::on_data(Lane& lane, const Frame& frame) {
  if (!lane.usable()) lane_usable(lane);
  return owner_.on_data(*this, frame);
}

void Link::on_data_end(Lane&, const Frame& frame, const std::uint8_t* payload) {
  owner_.on_data_end(*this, frame, payload);
}

std::optional<Lane::Outgoing> Link::next_data(Lane& lane) {
  if (broken_ || !lane.usable() || !may_send_on(lane)) return std::nullopt;
  auto next = owner_.next_data(*this);
  next ? tuner_.sent() : tuner_.starved();
  return next;
}

void Link::on_ended(Lane& lane, const std::string& reason, bool violation) {
  const std::uint32_t slot = lane.place().slot;
  if (broken_ || lanes_[slot].lane.get() != &lane) return;
  if (violation) return fail(reason);
  end_lane(slot, reason);
}

void Link::gone(const Welcome& welcome) {
  if (established_) return fail("the peer has given the link up");
  if (welcome.link > id_) owner_.on_outdated(*this, welcome.link);
}

void Link::heard_at_least(EventLoop::Clock::time_point time) { last_heard_ = std::max(last_heard_, time); }

void Link::watch_silence() {
  const auto now = EventLoop::Clock::now();
  // This process was stopped, and what came meanwhile may not have been read yet: its own pause isn't the peer's
  // silence, and half of one is left to be heard in.
  if (now - last_watch_ > silence_ / 2) {
    heard_at_least(now - silence_ / 2);
    for (const Slot& slot : lanes_) {
      if (slot.lane) slot.lane->heard_at_least(now - silence_ / 2);
    }
  }
  last_watch_ = now;
  for (std::uint32_t slot = 0; slot < lanes_.size() && !broken_; ++slot) {
    Lane* const lane = lanes_[slot].lane.get();
    if (lane == nullptr) continue;
    if (now - lane->last_heard() >= silence_) {
      end_lane(slot, "nothing came for " + in_ms(silence_));
    } else if (lane->usable() && now - lane->last_sent() >= silence_ / pings_per_silence) {
      lane->send_ack();
    }
  }
  if (established_ && !up() && now - last_heard_ >= silence_) {
    return fail(last_end_ + "; no connection could be restored within " + in_ms(silence_) + " (" + state() + ")");
  }
  if (broken_) return;
  retire_lanes();
  watch_ = EventLoop::Timer(loop_, silence_ / watches_per_silence, [this] { watch_silence(); });
}

}  // namespace pccl
