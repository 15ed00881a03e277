// The link to another peer: a bundle of connections, its lanes, that together survive the loss of any of them, and of
// all of them for a while.
//
// The lanes go over TCP; or, to a peer on the same host, there is one in shared memory. Where that one can't be made,
// and TCP is allowed, the link changes to TCP for good; the other side follows when it sees a TCP connection.
//
// Numbered frames (all but data and acks) are kept until the other side has acknowledged them, and delivered exactly
// once and in order: they go over one lane at a time, and when that one ends, all that are kept go over the next one;
// the receiver takes the number after the last one it took and drops what it has had already.
//
// Chunks go over whichever lane can take them, and may overtake each other and numbered frames. When a lane ends,
// each side tells the other how many whole chunks it had received on it; the chunks beyond are given back to the
// owner, to be sent again.
//
// How many lanes there are over TCP is pinned by one of the sides, or each side finds out how many its own bytes need
// (LaneTuner) and tells the other one; there are as many as the side has that needs more. Lanes that are left over are
// closed when they are at rest.
//
// A lane that ends is dialled again by both sides until it is back (LaneDials). When no lane is up and nothing has
// been heard from the peer for `silence`, the link is given up. Each side sends an ack on a lane that it has sent
// nothing on for a fifth of `silence`; a lane on which nothing came for all of it is dead, half-open and black-holed
// ones too.
//
// Memory of a link at rest: 8 KiB per lane, and two rings of shm_ring_bytes, which both processes share, for one in
// shared memory. Lanes that are receiving a chunk take chunk_bytes each from a pool.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pccl/engine.h"
#include "transport/event_loop.h"
#include "transport/handshake.h"
#include "transport/lane.h"
#include "transport/lane_dials.h"
#include "transport/lane_tuner.h"

namespace pccl {

class Link final : Lane::Owner, LaneDials::Owner, LaneTuner::Owner {
 public:
  // What the link's frames are for. A call may fail(), release() or wake() links, this one too.
  class Owner {
   public:
    virtual void on_control(Link& link, const Frame& frame) = 0;
    virtual Lane::Target on_data(Link& link, const Frame& frame) = 0;
    // Not called for what was dropped or released.
    virtual void on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload) = 0;
    // The next chunk to send, if there is one.
    virtual std::optional<Lane::Outgoing> next_data(Link& link) = 0;
    // A chunk that was taken by next_data hasn't reached the peer.
    virtual void on_unsent(Link& link, const ChunkId& chunk) = 0;
    // The first lane is up.
    virtual void on_up(Link& link) = 0;
    // The peer goes by a later link than this one, which has never been up.
    virtual void on_outdated(Link& link, LinkId later) = 0;
    // Called once, in a deferred task: the link is given up, and may be destroyed from a deferred task.
    virtual void on_broken(Link& link, const std::string& reason) = 0;

   protected:
    ~Owner() = default;
  };

  // What a view says of the link.
  struct Settings {
    LaneDials::Target target;
    std::chrono::milliseconds silence{};
    bool tcp_allowed = true;
    // Why the link can't be made as this peer is to make it; empty: it can be tried.
    std::string impossible = {};
  };
  struct Context {
    EventLoop& loop;
    Resolver& resolver;
    BufferPool& scratch;
    Owner& owner;
  };

  // Starts to dial. How many lanes it is to have over TCP is told by settings.target.hello.
  Link(const Context& context, LinkId id, const Settings& settings);
  Link(const Link&) = delete;

  PeerId peer() const { return peer_; }
  LinkId id() const { return id_; }
  // There is a lane.
  bool up() const { return control_lane_ != nullptr; }
  // There has been one, or there is one that the peer, which dialled, may take for one already.
  bool established() const;
  // The view is installed: from now on the link is given up when it isn't up for too long.
  void settle();
  // Why it isn't up.
  std::string state() const { return impossible_.empty() ? dials_.state() : impossible_; }
  Path path() const { return path_; }
  // The peer's process, if the two can read each other's memory (process_vm_readv). Known as long as the link is up;
  // when the peer's process has ended its number may be another's, so what was read counts only while it is up.
  std::optional<pid_t> readable_process() const;
  // It is one no more, for either side.
  void give_up_reading();

  // For a link that is kept in another view.
  void set(const Settings& settings);

  // Whether a connection with this Hello, for this link, is to take its slot.
  bool expects(const Hello& hello, Path path) const;
  void add(const Hello& hello, Connection connection);

  // Queued; written before this turn of the loop ends, or when there is a lane again.
  void send(const Frame& frame);
  // There may be data to send now.
  void wake();
  // From now on nothing of the op's memory is read or written.
  void release(OpId op);
  // Gives the link up; on_broken follows in a deferred task.
  void fail(std::string reason);
  // Gives it up without a word to the owner.
  void close();

 private:
  void on_frame(Lane& lane, const Frame& frame) override;
  Lane::Target on_data(Lane& lane, const Frame& frame) override;
  void on_data_end(Lane& lane, const Frame& frame, const std::uint8_t* payload) override;
  std::optional<Lane::Outgoing> next_data(Lane& lane) override;
  std::uint64_t frames_received() const override { return received_; }
  void on_ended(Lane& lane, const std::string& reason, bool violation) override;

  std::uint64_t taken_version(std::uint32_t slot) const override;
  bool wants(std::uint32_t slot) const override {
    return !broken_ && slot < lanes_wanted() && lanes_[slot].lane == nullptr;
  }
  void dialled(const Hello& hello, Connection connection, const Welcome& welcome) override;
  void cannot_dial(Dial::Failure failure) override;
  void gone(const Welcome& welcome) override;

  LaneTuner::Carried take_carried() override;
  void number_changed() override;

  struct Slot {
    std::unique_ptr<Lane> lane;
    std::uint64_t version = 0;  // of the last one
  };
  using LaneKey = std::pair<std::uint32_t, std::uint64_t>;

  bool adaptive() const { return pinned_ == 0 && peer_pinned_ == 0; }
  std::uint32_t lanes_wanted() const;
  void fill_slots();
  void peer_wants(std::uint32_t pinned);
  void tune(const Lane& lane);
  void retire_lanes();
  bool may_send_on(const Lane& lane) const;
  void fall_back_to_tcp();
  void put(const Hello& hello, Connection connection, bool usable);
  void lane_usable(Lane& lane);
  void end_lane(std::uint32_t slot, const std::string& reason);
  void choose_control_lane();
  void on_ack(Lane& lane, const AckBody& ack);
  void on_over(const OverBody& over);
  void heard_at_least(EventLoop::Clock::time_point time);
  void watch_silence();

  EventLoop& loop_;
  BufferPool& scratch_;
  Owner& owner_;
  const PeerId peer_;
  const LinkId id_;
  std::chrono::milliseconds silence_;
  const bool lower_;  // of the two ids this peer's is the lower one
  const bool tcp_allowed_;
  const std::string impossible_;
  Path path_;
  bool broken_ = false;
  bool established_ = false;

  std::vector<Slot> lanes_;
  Lane* control_lane_ = nullptr;  // the numbered frames' one; null: no lane is up
  // How many lanes of TCP each side is to have, whatever they carry; 0: as many as the two sides find out.
  const std::uint32_t pinned_;
  std::uint32_t peer_pinned_ = 0;
  // What the sides have found out. Each of the two sends over the first lanes, as many as it has found good for what
  // it sends itself.
  LaneTuner tuner_;
  std::uint32_t told_wanted_ = 1;
  std::uint64_t told_number_ = 0;  // of the frame that has told it
  std::uint32_t peer_wanted_ = 1;
  LaneDials::Target target_;
  LaneDials dials_;

  std::deque<Frame> kept_;  // sent and not acknowledged; the last one has number sent_
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::size_t unacknowledged_payload_bytes_ = 0;  // about, of what was received
  // Chunks on lanes that have ended, until the peer tells how many came through.
  std::map<LaneKey, Lane::Unacknowledged> in_doubt_;

  std::string last_end_;  // why the last lane ended
  EventLoop::Clock::time_point last_heard_;
  EventLoop::Clock::time_point last_watch_;
  EventLoop::Timer watch_;
};

}  // namespace pccl
