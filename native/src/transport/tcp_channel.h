// A channel over a TCP connection.
#pragma once

#include "transport/channel.h"

namespace pccl {

class TcpChannel final : public Channel, EventLoop::Handler {
 public:
  explicit TcpChannel(UniqueFd fd) : fd_(std::move(fd)) {}

  bool start(EventLoop& loop, Channel::Handler& handler) override;
  ssize_t read(std::span<const iovec> into) override;
  ssize_t write(std::span<const iovec> from) override;
  void wait_for_room(bool wait) override;
  std::optional<Condition> condition() const override;
  void set_silence(std::chrono::milliseconds silence) override;
  void close() override;
  Path path() const override { return Path::tcp; }
  std::optional<pid_t> readable_process() const override { return std::nullopt; }
  void give_up_reading() override {}

 private:
  void on_ready(std::uint32_t events) override;

  UniqueFd fd_;
  EventLoop::Watch watch_;
  Channel::Handler* handler_ = nullptr;
};

}  // namespace pccl
