// An established connection to another peer: frames in, frames out. It knows nothing of what they mean. Payload is
// read straight to where its owner wants it and written straight from there; release() ends both at any moment,
// also in the middle of a frame, so that the owner's memory can go.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "pccl/engine.h"
#include "transport/event_loop.h"
#include "transport/frame.h"

namespace pccl {

class Link final : EventLoop::Handler {
 public:
  // Where a data frame's payload goes. `op` is whose memory that is; a null `into` drops the payload.
  struct Target {
    std::uint8_t* into = nullptr;
    OpId op = 0;
  };
  struct Outgoing {
    Header header;
    const std::uint8_t* payload = nullptr;
    std::uint32_t bytes = 0;
    OpId op = 0;
  };

  // What the link's frames are for. A call may fail(), release() or wake() links, this one too.
  class Owner {
   public:
    virtual void on_control(Link& link, const Frame& frame) = 0;
    virtual Target on_data(Link& link, const Frame& frame) = 0;
    // All of the payload is at `payload`, the target that on_data gave. Not called for what was released.
    virtual void on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload) = 0;
    // The next chunk to send, if there is one.
    virtual std::optional<Outgoing> next_data(Link& link) = 0;
    // Called once; the link is dead, and may be destroyed from a deferred task.
    virtual void on_broken(Link& link, const std::string& reason) = 0;

   protected:
    ~Owner() = default;
  };

  Link(EventLoop& loop, Owner& owner, PeerId peer, UniqueFd fd);
  Link(const Link&) = delete;

  PeerId peer() const { return peer_; }

  // limits::chunk_bytes of memory to receive into, aligned for any vector; one frame's payload at a time.
  std::uint8_t* scratch() { return scratch_.get(); }

  // Queued, and written before this turn of the loop ends.
  void send(const Frame& frame);
  // There may be data to send now.
  void wake();
  // From now on nothing of the op's memory is read or written.
  void release(OpId op);
  // Breaks the link; on_broken follows in a deferred task.
  void fail(std::string reason);
  // Breaks it without a word to the owner.
  void close();

 private:
  struct Sending {
    Outgoing frame;
    std::size_t sent = 0;  // of header and payload
    std::vector<std::uint8_t> owned;
    std::size_t total() const { return header_bytes + frame.bytes; }
  };
  struct Free {
    void operator()(std::uint8_t* memory) const;
  };

  void on_ready(std::uint32_t events) override;
  void receive();
  bool receive_once(std::size_t& budget);
  void parse_staged();
  std::size_t parse_frame(std::size_t at);
  void payload_arrived(std::size_t bytes);
  void flush();
  bool write_once(std::size_t& budget);
  void written(std::size_t bytes);
  void pull_data();
  bool nothing_to_send() const { return control_.size() == control_sent_ && data_.empty(); }

  EventLoop& loop_;
  Owner& owner_;
  const PeerId peer_;
  UniqueFd fd_;
  EventLoop::Watch watch_;
  bool broken_ = false;
  bool flush_deferred_ = false;

  // Receiving: bytes that are read but not understood yet, and the data frame that is under way.
  std::vector<std::uint8_t> staging_;
  std::size_t staged_ = 0;
  Frame data_frame_;
  Target target_;
  std::uint32_t payload_bytes_ = 0;
  std::uint32_t payload_left_ = 0;
  std::unique_ptr<std::uint8_t[], Free> scratch_;

  // Sending: whole frames without data, and the chunks that were taken from the owner.
  std::vector<std::uint8_t> control_;
  std::size_t control_sent_ = 0;
  std::deque<Sending> data_;
};

}  // namespace pccl
