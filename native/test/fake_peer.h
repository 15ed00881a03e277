// A member of the ring that says on its links exactly what a test wants: late, wrong, or nothing. It blocks the
// test's thread, with deadlines. It must have a higher rank than the engines that it is linked with, so that they
// dial.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "pccl/engine.h"
#include "transport/frame.h"

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

  Member member() const { return {id_, "127.0.0.1", port_}; }

  // Takes the next connection, reads its Hello, answers with a Welcome.
  Hello accept_link();
  void send(const Frame& frame);
  void send_data(Epoch epoch, OpKey key, const DataBody& body, const void* payload);
  void send_raw(const std::vector<std::uint8_t>& bytes) { send_all(link_.get(), bytes.data(), bytes.size()); }
  // The next frame, with a data frame's payload in `payload`.
  Frame receive();
  void hang_up() { link_.reset(); }
  bool link_closed() { return closed_by_peer(link_.get()); }

  std::vector<std::uint8_t> payload;

 private:
  PeerId id_;
  UniqueFd listener_;
  std::uint16_t port_;
  UniqueFd link_;
};

}  // namespace pccl::test
