// One connection of a link: frames in, frames out. It knows nothing of what they mean. Payload is read straight
// to where its owner wants it and written straight from there; release() ends both at any moment, also in the middle
// of a frame, so that the owner's memory can go.
//
// Chunks are counted in both directions, so that after its end the two sides can tell which ones came through. Those
// that were written whole are remembered until the other side has acknowledged them.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer_pool.h"
#include "pccl/engine.h"
#include "transport/channel.h"
#include "transport/event_loop.h"
#include "transport/frame.h"

namespace pccl {

class Lane final : Channel::Handler {
 public:
  using Time = EventLoop::Clock::time_point;

  // Where a chunk's payload goes; `op` is whose memory that is.
  struct Target {
    enum class Place : std::uint8_t { dropped, scratch, memory };
    Place place = Place::dropped;
    std::uint8_t* memory = nullptr;
    OpId op = 0;
  };
  struct Outgoing {
    ChunkId chunk;
    const std::uint8_t* payload = nullptr;
    OpId op = 0;
  };

  // What the lane's frames are for. A call may close(), release() or wake() lanes, this one too.
  class Owner {
   public:
    // All but data.
    virtual void on_frame(Lane& lane, const Frame& frame) = 0;
    virtual Target on_data(Lane& lane, const Frame& frame) = 0;
    // All of the payload is at `payload`: the target that on_data gave. Not called for what was dropped or released.
    virtual void on_data_end(Lane& lane, const Frame& frame, const std::uint8_t* payload) = 0;
    // The next chunk to send, if there is one.
    virtual std::optional<Outgoing> next_data(Lane& lane) = 0;
    virtual std::uint64_t frames_received() const = 0;
    // Called once, in a deferred task. `violation`: the peer sent what no correct peer sends.
    virtual void on_ended(Lane& lane, const std::string& reason, bool violation) = 0;

   protected:
    ~Owner() = default;
  };

  struct Place {
    std::uint32_t slot = 0;
    std::uint64_t version = 0;
  };

  // `usable`: the other side is known to have taken the connection for its lane too. Otherwise its first frame tells.
  Lane(EventLoop& loop, Owner& owner, BufferPool& scratch, Place place, Connection connection, bool usable);
  Lane(const Lane&) = delete;

  const Place& place() const { return place_; }
  bool usable() const { return usable_; }
  void set_usable() { usable_ = true; }
  void set_silence(std::chrono::milliseconds silence);
  const Channel& channel() const { return *channel_; }
  void give_up_reading() { channel_->give_up_reading(); }

  // All that was taken to be sent has been acknowledged, and no chunk is half here.
  bool at_rest() const { return nothing_to_send() && unacknowledged_.empty() && payload_left_ == 0; }
  // That the other host's system has acknowledged since the last call.
  std::uint64_t take_carried_bytes();

  Time begun() const { return begun_; }
  Time last_heard() const { return last_heard_; }
  Time last_sent() const { return last_sent_; }
  // At the earliest then: after a pause of this process its own silence isn't the peer's.
  void heard_at_least(Time time) { last_heard_ = std::max(last_heard_, time); }

  // Queued, and written before this turn of the loop ends.
  void send(const Frame& frame);
  void send_ack();
  // There may be data to send now.
  void wake();
  // From now on nothing of the op's memory is read or written.
  void release(OpId op);

  // Ends the lane; on_ended follows in a deferred task.
  void fail(std::string reason, bool violation = false);
  // Ends it without a word to the owner.
  void close();

  // Whole data frames that came.
  std::uint64_t chunks_received() const { return chunks_received_; }
  // The other side has got this many. False: that can't be.
  bool acknowledge(std::uint64_t chunks);
  // After the end: the chunks that went only in part, or not at all, and so can't have come through.
  std::vector<ChunkId> unsent() const;
  // The chunks that went whole, from number `first` on, and may have come through.
  struct Unacknowledged {
    std::uint64_t first = 0;
    std::deque<ChunkId> chunks;
  };
  Unacknowledged take_unacknowledged();

 private:
  struct Sending {
    Outgoing out;
    Header header;
    std::size_t sent = 0;  // of header and payload
    std::vector<std::uint8_t> owned;
    std::size_t total() const { return header_bytes + out.chunk.body.bytes; }
  };

  void on_channel(bool readable, bool writable) override;
  void connection_lost(int code);
  void receive();
  bool receive_once(std::size_t& budget);
  void parse_staged();
  std::size_t parse_frame(std::size_t at);
  void begin_payload();
  std::uint8_t* payload_memory();
  void payload_arrived(std::size_t bytes);
  void flush();
  void append_ack();
  bool write_once(std::size_t& budget);
  void written(std::size_t bytes);
  void pull_data();
  bool nothing_to_send() const { return control_.size() == control_sent_ && data_.empty(); }

  EventLoop& loop_;
  Owner& owner_;
  BufferPool& scratch_pool_;
  const Place place_;
  const std::unique_ptr<Channel> channel_;
  bool usable_;
  bool ended_ = false;
  bool flush_deferred_ = false;
  bool blocked_ = false;  // the channel takes no more for now
  const Time begun_;
  Time last_heard_;
  Time last_sent_;

  // Receiving: bytes that are read but not understood yet, and the data frame that is under way.
  std::vector<std::uint8_t> staging_;
  std::size_t staged_ = 0;
  Frame data_frame_;
  Target target_;
  BufferPool::Buffer scratch_;  // while a payload without memory of its own is under way
  std::uint32_t payload_bytes_ = 0;
  std::uint32_t payload_left_ = 0;
  std::uint64_t chunks_received_ = 0;

  // Sending: whole frames without data, and the chunks that were taken from the owner.
  std::vector<std::uint8_t> control_;
  std::size_t control_sent_ = 0;
  bool ack_due_ = false;
  bool ack_first_ = false;  // control_ begins with an ack of which nothing was sent
  std::deque<Sending> data_;
  std::deque<ChunkId> unacknowledged_;
  std::uint64_t carried_bytes_ = 0;
  std::uint64_t chunks_acknowledged_ = 0;
};

}  // namespace pccl
