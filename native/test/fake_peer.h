// A member of the ring that says on its lanes exactly what a test wants: late, wrong, or nothing; but a thread of its
// own keeps its lane from falling silent. It blocks the test's thread, with deadlines. It must have a greater id than
// the engines that it is linked with, so that they dial at once.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "pccl/engine.h"
#include "transport/frame.h"
#include "transport/handshake.h"

namespace pccl::test {

// A blocking TCP connection to the port on loopback, with receive deadlines.
UniqueFd connect_to(std::uint16_t port);
void send_all(int fd, const void* bytes, std::size_t size);
// False when the connection ended before.
bool receive_all(int fd, void* bytes, std::size_t size);
// Waits for the other side to close; false when bytes come instead.
bool closed_by_peer(int fd);

class FakePeer {
 public:
  explicit FakePeer(PeerId id);
  ~FakePeer();

  Member member() const { return {id_, "127.0.0.1", port_}; }

  // Takes the next connection, reads its Hello, answers with a Welcome.
  Hello accept_link();
  // Gives the frame the next number, if its kind has one.
  void send(Frame frame);
  void send_data(Epoch epoch, OpKey key, const DataBody& body, const void* payload);
  // `in_frame`: they end in the middle of a frame.
  void send_raw(const std::vector<std::uint8_t>& bytes, bool in_frame = false);
  // The next frame that is no ack, with a data frame's payload in `payload`.
  Frame receive();
  void hang_up();
  bool link_closed() { return closed_by_peer(link_.get()); }

  std::vector<std::uint8_t> payload;

 private:
  PeerId id_;
  UniqueFd listener_;
  std::uint16_t port_;
  std::mutex mutex_;  // of what follows, and of writing
  std::condition_variable wake_;
  bool ended_ = false;
  bool is_lane_ = false;   // and not a connection for state, on which an ack would be garbage
  bool in_frame_ = false;  // an ack would land in the middle of it
  UniqueFd link_;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t chunks_received_ = 0;
  std::thread pings_;
};

}  // namespace pccl::test
