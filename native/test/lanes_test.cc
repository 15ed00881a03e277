// Two sides that have found out different numbers have the lanes that the larger one asks for, and no more.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <stdexcept>

#include "cluster.h"
#include "fake_peer.h"
#include "transport/socket.h"

namespace pccl::test {
namespace {

// A peer of one engine that accepts any number of lanes, and says how many it wants.
class ManyLanes {
 public:
  Member member() const { return {2, "127.0.0.1", local_port(listener_.get())}; }

  // Takes the next connection; gives its slot.
  std::uint32_t accept() {
    pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 60'000) != 1) throw std::runtime_error("nobody dials");
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    HelloBytes bytes;
    if (!receive_all(fd.get(), bytes.data(), bytes.size())) throw std::runtime_error("no hello");
    const auto hello = decode_hello(bytes);
    if (!hello || hello->lanes != 0) throw std::runtime_error("bad hello");
    const auto welcome = encode_welcome({Welcome::Status::welcome, hello->link, 0});
    send_all(fd.get(), welcome.data(), welcome.size());
    lanes_[hello->slot] = std::move(fd);
    return hello->slot;
  }
  void want(std::uint32_t count) {
    std::vector<std::uint8_t> bytes;
    append_frame({0, {}, LanesBody{count}, ++sent_}, bytes);
    send_all(lanes_.at(0).get(), bytes.data(), bytes.size());
  }
  // Whatever comes before.
  void await_end(std::uint32_t slot) {
    std::uint8_t byte;
    while (::recv(lanes_.at(slot).get(), &byte, 1, 0) == 1) {
    }
    lanes_.erase(slot);
  }

 private:
  UniqueFd listener_ = listen_tcp("127.0.0.1", 0);
  std::map<std::uint32_t, UniqueFd> lanes_;
  std::uint64_t sent_ = 0;
};

TEST(Lanes, AsManyAsThePeerWants) {
  ManyLanes peer;
  Cluster cluster(1, {0});
  const View view{.epoch = 2,
                  .view_epoch = 2,
                  .self = cluster[0].id,
                  .key = test_key,
                  .ring = {cluster[0].member(), peer.member()},
                  .world_size = 2,
                  .silence_ms = 10'000};
  cluster[0].engine->prepare(view, 60'000);
  ASSERT_EQ(peer.accept(), 0u);
  peer.want(4);
  std::vector<std::uint32_t> slots;
  for (int i = 0; i < 3; ++i) slots.push_back(peer.accept());
  std::sort(slots.begin(), slots.end());
  EXPECT_EQ(slots, (std::vector<std::uint32_t>{1, 2, 3}));
  peer.want(1);
  for (const std::uint32_t slot : {1u, 2u, 3u}) peer.await_end(slot);
  // Had it dialled any of those again, this would be another one.
  peer.want(2);
  EXPECT_EQ(peer.accept(), 1u);
  EXPECT_EQ(cluster[0].lost.count(), 0u);
}

}  // namespace
}  // namespace pccl::test
