// A channel through memory that two processes of one host share. Its Unix socket carries no data: a byte on it is a
// doorbell, rung only when the other side sleeps, and its end is that of the other process or of its lane.
#pragma once

#include "transport/channel.h"

namespace pccl {

class ShmChannel final : public Channel, EventLoop::Handler, EventLoop::Poller {
 public:
  ShmChannel(UniqueFd fd, std::unique_ptr<ShmSegment> segment);

  bool start(EventLoop& loop, Channel::Handler& handler) override;
  ssize_t read(std::span<const iovec> into) override;
  ssize_t write(std::span<const iovec> from) override;
  void wait_for_room(bool wait) override { waits_for_room_ = wait; }
  // The end of a process shows at once, and the host is this one.
  std::optional<Condition> condition() const override { return std::nullopt; }
  void set_silence(std::chrono::milliseconds) override {}
  void close() override;
  Path path() const override { return Path::shm; }
  std::optional<pid_t> readable_process() const override { return segment_->readable_process(); }
  void give_up_reading() override { segment_->give_up_reading(); }

 private:
  void on_ready(std::uint32_t events) override;
  bool poll() override;
  bool sleep(bool idle) override;
  void wake() override { own_.asleep.store(0); }

  bool has_bytes() const;
  bool has_room() const;
  // The other side sleeps for this, and now has it.
  void wake_other(std::uint32_t what);
  void ring_bell();

  UniqueFd fd_;
  const std::unique_ptr<ShmSegment> segment_;
  ShmSide& own_;
  ShmSide& other_;
  ShmReader reader_;
  ShmWriter writer_;
  EventLoop* loop_ = nullptr;
  EventLoop::Watch watch_;
  EventLoop::Polling polling_;
  Channel::Handler* handler_ = nullptr;
  bool waits_for_room_ = false;
  bool bell_is_due_ = false;
  bool ended_ = false;  // the other side has closed the socket
};

}  // namespace pccl
