// A TCP proxy on loopback that misbehaves on request: it resets connections, refuses them, or stops to forward, as a
// firewall that forgets or a cable that is pulled would.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace pccl::test {

class FlakyProxy {
 public:
  explicit FlakyProxy(std::uint16_t target_port);
  ~FlakyProxy();
  FlakyProxy(const FlakyProxy&) = delete;

  std::uint16_t port() const { return port_; }
  // So far.
  std::size_t connections() const { return connections_; }
  std::size_t resets() const { return resets_; }

  // Ends what is open with a reset; what it still held is lost.
  void reset();
  // From now on each connection is reset when a random number of bytes, `bytes` on average, has gone through. 0: none.
  void reset_after(std::uint64_t bytes);
  // Nothing is forwarded in that direction, seen from the side that dials, and nothing is closed either.
  void hold(bool forth, bool back);
  // New connections end at once.
  void refuse(bool refuse);
  // Only the n-th open connection is held, in both directions.
  void hold_one(std::size_t n);

 private:
  struct Half {
    std::vector<std::uint8_t> waiting;
    bool ended = false;
  };
  struct Connection {
    UniqueFd client, server;
    Half forth, back;
    std::uint64_t bytes_left = 0;  // until it is reset; 0: never
    bool held = false;
    bool over = false;
  };

  void run();
  void accept_one();
  // Moves what can be moved; false: the connection has ended.
  bool move(Connection& connection, int from, int to, Half& half);
  void end(Connection& connection);
  std::uint64_t draw();
  void wake();

  const std::uint16_t target_port_;
  UniqueFd listener_;
  std::uint16_t port_;
  UniqueFd wake_read_, wake_write_;
  std::atomic<std::size_t> connections_{0}, resets_{0};

  std::mutex mutex_;
  bool stop_ = false, refuse_ = false, hold_forth_ = false, hold_back_ = false;
  std::uint64_t reset_after_ = 0;
  std::mt19937_64 random_{1};
  std::list<Connection> open_;
  std::thread thread_;
};

}  // namespace pccl::test
