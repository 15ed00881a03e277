// Lanes in shared memory: when they are made, what they survive, and what they turn away.
#include <gtest/gtest.h>

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "base/limits.h"
#include "cluster.h"
#include "fake_peer.h"
#include "transport/local_socket.h"
#include "transport/shm_segment.h"

namespace pccl::test {
namespace {

using namespace std::chrono_literals;

// Mappings of lanes' memory in this process: one per end.
std::size_t lanes_mapped() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("memfd:pccl-lane") != std::string::npos;
  return count;
}

template <typename F>
void wait_until(F condition) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("didn't come true within a minute");
    std::this_thread::sleep_for(1ms);
  }
}

// Engines 1 … N of this process in one ring, each with a transport of its own.
struct Group {
  explicit Group(std::vector<TransportMode> transports, std::uint32_t lanes = 1) {
    for (const TransportMode transport : transports) {
      auto& peer = *peers.emplace_back(std::make_unique<Peer>());
      peer.id = peers.size();
      peer.engine = Engine::create({.connections_per_peer = lanes, .transport = transport});
      Peer* const at = &peer;
      peer.engine->set_control({
          .prepared = [at](Epoch epoch,
                           const std::vector<LinkFailure>& failures) { at->prepared_in(epoch).set(failures); },
          .link_lost = [at](Epoch epoch, PeerId other, const std::string& reason) {
            at->lost.set({epoch, other, reason});
          },
      });
    }
  }

  View view_for(std::size_t rank, std::vector<std::uint32_t> hosts) const {
    View view{.epoch = 1, .view_epoch = 1, .self = rank + 1, .key = test_key, .ring = {}, .world_size = 0};
    for (const auto& peer : peers) view.ring.push_back(peer->member());
    view.world_size = static_cast<std::uint32_t>(peers.size());
    view.silence_ms = silence_ms;
    view.hosts = std::move(hosts);
    return view;
  }
  std::vector<std::vector<LinkFailure>> prepare(const std::vector<std::uint32_t>& hosts, std::uint32_t timeout_ms) {
    for (std::size_t rank = 0; rank < peers.size(); ++rank) {
      peers[rank]->engine->prepare(view_for(rank, hosts), timeout_ms);
    }
    std::vector<std::vector<LinkFailure>> failures;
    for (const auto& peer : peers) failures.push_back(peer->prepared_in(1).get());
    return failures;
  }
  void link(const std::vector<std::uint32_t>& hosts) {
    for (const auto& failures : prepare(hosts, 30'000)) {
      ASSERT_TRUE(failures.empty()) << failures[0].reason;
    }
    for (const auto& peer : peers) peer->engine->install(1, {});
  }
  void expect_sum(std::uint64_t count) {
    std::vector<std::vector<float>> data(peers.size(), std::vector<float>(count, 1));
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < peers.size(); ++rank) {
      ops.push_back(peers[rank]->all_reduce({data[rank].data(), data[rank].data(), count}));
    }
    for (std::size_t rank = 0; rank < peers.size(); ++rank) {
      const OpResult result = ops[rank].second.get();
      ASSERT_FALSE(result.error) << result.error->message;
      ASSERT_EQ(data[rank], std::vector<float>(count, static_cast<float>(peers.size())));
    }
  }

  std::uint32_t silence_ms = 20'000;
  std::vector<std::unique_ptr<Peer>> peers;
};

constexpr auto automatic = TransportMode::automatic;
constexpr auto shm = TransportMode::shm;
constexpr auto tcp = TransportMode::tcp;

TEST(Shm, LinksOfOneHostShareMemoryAndOthersDont) {
  Group group({automatic, automatic, automatic}, 3);
  EXPECT_FALSE(group.peers[0]->engine->host_id().empty());
  EXPECT_EQ(group.peers[0]->engine->host_id(), group.peers[1]->engine->host_id());
  group.link({7, 9, 7});
  EXPECT_EQ(lanes_mapped(), 2u);
  group.expect_sum(500'000);
  group.peers.clear();
  EXPECT_EQ(lanes_mapped(), 0u);
}

TEST(Shm, TheMemoryOfALinkStaysBelowItsBound) {
  Group group({shm, shm});
  group.link({0, 0});
  group.expect_sum(1'000'000);
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool of_lane = false;
  std::size_t kib = 0;
  while (std::getline(maps, line)) {
    if (line.find('-') != std::string::npos && line.find(' ') < 40) of_lane = line.find("pccl-lane") != std::string::npos;
    if (of_lane && line.starts_with("Pss:")) kib += std::stoul(line.substr(4));
  }
  EXPECT_GT(kib, 0u);
  EXPECT_LT(kib, 2048u);
}

TEST(Shm, AnEngineForTcpHasNoHostId) { EXPECT_EQ(Engine::create({.transport = tcp})->host_id(), ""); }

TEST(Shm, OtherNetworkNamespacesAreOtherHosts) {
  std::string id = "none";
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) == 0) id = Engine::create({.host = "0.0.0.0"})->host_id();
  }).join();
  if (id == "none") GTEST_SKIP() << "a network namespace needs more rights than this process has";
  EXPECT_FALSE(id.empty());
  EXPECT_NE(id, Engine::create({})->host_id());
}

// The view says so, but nobody listens there.
TEST(Shm, AutoFallsBackToTcpWhenNobodyListens) {
  for (const bool lower : {true, false}) {
    Group group({lower ? automatic : tcp, lower ? tcp : automatic}, 2);
    group.link({0, 0});
    EXPECT_EQ(lanes_mapped(), 0u);
    group.expect_sum(100'000);
    EXPECT_EQ(group.peers[0]->lost.count() + group.peers[1]->lost.count(), 0u);
  }
}

TEST(Shm, ForcedItFailsTheLinkWithAReason) {
  {
    Group group({shm, tcp});
    const auto failures = group.prepare({0, 0}, 700);
    ASSERT_EQ(failures[0].size(), 1u);
    EXPECT_NE(failures[0][0].reason.find("connect"), std::string::npos) << failures[0][0].reason;
    EXPECT_EQ(failures[1].size(), 1u);
  }
  Group group({shm, automatic, automatic});
  const auto failures = group.prepare({0, 0, 1}, 700);
  ASSERT_EQ(failures[0].size(), 1u);
  EXPECT_EQ(failures[0][0].peer, 3u);
  EXPECT_NE(failures[0][0].reason.find("another host"), std::string::npos) << failures[0][0].reason;
  EXPECT_TRUE(failures[1].empty());
  EXPECT_EQ(failures[2].size(), 1u);
}

// The system gives no memory, as seen by whoever dials.
TEST(Shm, WithoutMemoryAutoFallsBackAndForcedItSaysSo) {
  struct Limit {
    Limit() {
      ::getrlimit(RLIMIT_FSIZE, &before);
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit none{.rlim_cur = 4096, .rlim_max = before.rlim_max};
      ::setrlimit(RLIMIT_FSIZE, &none);
    }
    ~Limit() {
      ::setrlimit(RLIMIT_FSIZE, &before);
      ::signal(SIGXFSZ, SIG_DFL);
    }
    rlimit before{};
  };
  {
    Group group({automatic, automatic}, 2);
    {
      const Limit limit;
      group.link({0, 0});
    }
    EXPECT_EQ(lanes_mapped(), 0u);
    group.expect_sum(100'000);
  }
  Group group({shm, shm});
  const Limit limit;
  const auto failures = group.prepare({0, 0}, 700);
  ASSERT_EQ(failures[0].size(), 1u);
  EXPECT_NE(failures[0][0].reason.find("no memory for a lane"), std::string::npos) << failures[0][0].reason;
}

// Ends every connected Unix socket of this process, as if a fault had.
void cut_lanes() {
  DIR* const folder = ::opendir("/proc/self/fd");
  std::vector<int> sockets;
  while (const dirent* const entry = ::readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    sockaddr_storage address{};
    socklen_t bytes = sizeof address;
    if (fd > 2 && ::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &bytes) == 0 &&
        address.ss_family == AF_UNIX) {
      sockets.push_back(fd);
    }
  }
  ::closedir(folder);
  for (const int fd : sockets) ::shutdown(fd, SHUT_RDWR);
}

class ShmResume : public testing::TestWithParam<std::size_t> {};

// Many cuts at any moment, chunks under way in both directions: ops go on as if nothing had happened.
TEST_P(ShmResume, OpsSurviveLostLanes) {
  Group group(std::vector<TransportMode>(GetParam(), shm));
  group.link(std::vector<std::uint32_t>(GetParam(), 0));
  std::atomic<bool> over{false};
  std::atomic<int> cuts{0};
  std::thread cutter([&] {
    while (!over) {
      std::this_thread::sleep_for(3ms);
      cut_lanes();
      ++cuts;
    }
  });
  for (int round = 0; round < 12 || cuts < 10; ++round) {
    group.expect_sum(round % 2 == 0 ? 700'000 : 100);
    if (testing::Test::HasFatalFailure()) break;
  }
  over = true;
  cutter.join();
  for (const auto& peer : group.peers) EXPECT_EQ(peer->lost.count(), 0u);
  wait_until([&] { return lanes_mapped() == GetParam() * (GetParam() - 1); });
}

INSTANTIATE_TEST_SUITE_P(Peers, ShmResume, testing::Values(2, 3));

// A process with an engine, linked with the test's one. Its life is over with the test.
class ShmProcess : public testing::Test {
 protected:
  static constexpr std::uint16_t none = 0;

  void SetUp() override {
    // Forked before this process has an engine, whose threads a fork would lose.
    int to_child[2], to_parent[2];
    ASSERT_EQ(::pipe(to_child), 0);
    ASSERT_EQ(::pipe(to_parent), 0);
    child_ = ::fork();
    if (child_ == 0) {
      run_child(to_child[0], to_parent[1]);
      ::_exit(0);
    }
    to_child_ = UniqueFd(to_child[1]);
    from_child_ = UniqueFd(to_parent[0]);
    ::close(to_child[0]);
    ::close(to_parent[1]);
    engine_ = Engine::create({.transport = shm});
    engine_->set_control({
        .prepared = [this](Epoch, const std::vector<LinkFailure>& failures) { prepared_.set(failures); },
        .link_lost =
            [this](Epoch epoch, PeerId peer, const std::string& reason) {
              lost_.set({epoch, peer, reason});
            },
    });
  }

  void TearDown() override {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }

  // `silence_ms`: after which it would be found in any case.
  void link(std::uint32_t silence_ms) {
    std::uint16_t other = none;
    const std::uint16_t own = engine_->port();
    ASSERT_EQ(::read(from_child_.get(), &other, sizeof other), static_cast<ssize_t>(sizeof other));
    ASSERT_EQ(::write(to_child_.get(), &own, sizeof own), static_cast<ssize_t>(sizeof own));
    engine_->prepare(view(1, own, other, silence_ms), 30'000);
    const auto failures = prepared_.get();
    ASSERT_TRUE(failures.empty()) << failures[0].reason;
    engine_->install(1, {});
    // It takes part in one op, so that its side is up too.
    float value = 1;
    Awaited<OpResult> result;
    engine_->start(AllReduce{&value, &value, 1}.call(), [result](OpId, const OpResult& of_op) { result.set(of_op); });
    ASSERT_FALSE(result.get().error);
    ASSERT_EQ(value, 3);
  }

  pid_t child_ = -1;
  Awaited<Lost> lost_;
  Awaited<std::vector<LinkFailure>> prepared_;
  std::shared_ptr<Engine> engine_;

 private:
  static View view(PeerId self, std::uint16_t first, std::uint16_t second, std::uint32_t silence_ms) {
    return {.epoch = 1,
            .view_epoch = 1,
            .self = self,
            .key = test_key,
            .ring = {{1, "127.0.0.1", first}, {2, "127.0.0.1", second}},
            .world_size = 2,
            .silence_ms = silence_ms,
            .hosts = {0, 0}};
  }
  static void run_child(int from_parent, int to_parent) {
    const auto engine = Engine::create({.transport = shm});
    Awaited<std::vector<LinkFailure>> prepared;
    engine->set_control({.prepared = [prepared](Epoch, const std::vector<LinkFailure>& failures) {
      prepared.set(failures);
    }});
    const std::uint16_t own = engine->port();
    std::uint16_t other = none;
    if (::write(to_parent, &own, sizeof own) < 0 || ::read(from_parent, &other, sizeof other) <= 0) return;
    engine->prepare(view(2, other, own, 600'000), 30'000);
    if (!prepared.get().empty()) return;
    engine->install(1, {});
    float value = 2;
    Awaited<OpResult> result;
    engine->start(AllReduce{&value, &value, 1}.call(), [result](OpId, const OpResult& of_op) { result.set(of_op); });
    result.get();
    for (;;) ::pause();
  }

  UniqueFd to_child_, from_child_;
};

// The silence is ten times as long as the test would wait.
TEST_F(ShmProcess, ItsDeathIsFoundByItsSocket) {
  ASSERT_NO_FATAL_FAILURE(link(600'000));
  ::kill(child_, SIGKILL);
  const Lost lost = lost_.get();
  EXPECT_EQ(lost.peer, 2u);
  EXPECT_NE(lost.reason.find("process has ended"), std::string::npos) << lost.reason;
}

TEST_F(ShmProcess, ItsStandstillIsFoundByItsSilence) {
  ASSERT_NO_FATAL_FAILURE(link(700));
  ::kill(child_, SIGSTOP);
  const Lost lost = lost_.get();
  EXPECT_EQ(lost.peer, 2u);
  EXPECT_NE(lost.reason.find("700 ms"), std::string::npos) << lost.reason;
}

// Says on a local socket what a test wants.
class LocalStranger : public testing::Test {
 protected:
  // Peer 2 is the stranger, which listens nowhere: its number is the greater one, so the engine dials at once, and
  // finds nobody.
  void SetUp() override {
    engine_->set_control({
        .prepared = [this](Epoch, const std::vector<LinkFailure>& failures) { prepared_.set(failures); },
        .link_lost =
            [this](Epoch epoch, PeerId peer, const std::string& reason) {
              lost_.set({epoch, peer, reason});
            },
    });
    engine_->prepare({.epoch = 1,
                      .view_epoch = 1,
                      .self = 1,
                      .key = test_key,
                      .ring = {{1, "127.0.0.1", engine_->port()}, {2, "127.0.0.1", 1}},
                      .world_size = 2,
                      .hosts = {0, 0}},
                     60'000);
  }

  UniqueFd connect() const { return connect_local(engine_->port()); }
  static UniqueFd connect_local(std::uint16_t port) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Address address = local_address(port);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.bytes) != 0) {
      throw std::runtime_error("can't connect to the engine");
    }
    const timeval deadline{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    return fd;
  }
  Hello right() const { return {ConnectionKind::link, 1, 2, 1, test_key, {1, 0}, 1, 0, ++incarnation_}; }
  static std::optional<Welcome> answer(int fd) {
    WelcomeBytes bytes;
    if (!receive_all(fd, bytes.data(), bytes.size())) return std::nullopt;
    return decode_welcome(bytes);
  }
  // With memory as it should be.
  UniqueFd link_up(std::unique_ptr<ShmSegment>& segment) const {
    std::string error;
    segment = ShmSegment::create(error);
    UniqueFd fd = connect();
    send_with_descriptor(fd.get(), encode_hello(right()), segment->descriptor());
    const auto welcome = answer(fd.get());
    EXPECT_TRUE(welcome && welcome->status == Welcome::Status::welcome);
    segment->try_to_read(local_peer(fd.get()).process);
    return fd;
  }

  mutable std::uint64_t incarnation_ = 0;
  Awaited<std::vector<LinkFailure>> prepared_;
  Awaited<Lost> lost_;
  std::shared_ptr<Engine> engine_ = Engine::create({.transport = shm});
};

TEST_F(LocalStranger, WithoutTheKeyIsTurnedAway) {
  std::string error;
  const auto segment = ShmSegment::create(error);
  Hello wrong = right();
  wrong.key[0] ^= 1;
  Hello state{ConnectionKind::state, 1, 2, 1, test_key};
  Hello other_slot = right();
  other_slot.slot = 1;
  other_slot.lanes = 2;
  for (const Hello& hello : {wrong, state, other_slot}) {
    const UniqueFd fd = connect();
    send_with_descriptor(fd.get(), encode_hello(hello), segment->descriptor());
    EXPECT_TRUE(closed_by_peer(fd.get()));
  }
}

TEST_F(LocalStranger, OfAnotherUserIsTurnedAway) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65534) != 0) ::_exit(2);
    // Its connection is closed before it has said a word.
    ::_exit(closed_by_peer(connect().get()) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// A memory that could be made smaller would end the process that reads it.
TEST_F(LocalStranger, WithBadMemoryHearsSo) {
  const auto memory = [](std::size_t bytes, unsigned seals) {
    UniqueFd fd(::memfd_create("stranger", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
    EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seals), 0);
    return fd;
  };
  std::string error;
  const auto good = ShmSegment::create(error);
  const auto good_bytes = static_cast<std::size_t>(::lseek(good->descriptor(), 0, SEEK_END));
  const auto refused = [&](int descriptor) {
    const UniqueFd fd = connect();
    send_with_descriptor(fd.get(), encode_hello(right()), descriptor);
    const auto welcome = answer(fd.get());
    EXPECT_TRUE(welcome && welcome->status == Welcome::Status::no_memory);
    EXPECT_TRUE(closed_by_peer(fd.get()));
  };
  refused(memory(good_bytes, F_SEAL_GROW).get());
  refused(memory(good_bytes - 1, F_SEAL_SHRINK).get());
  refused(memory(good_bytes + 4096, F_SEAL_SHRINK).get());
  refused(UniqueFd(::open("/dev/null", O_RDWR)).get());
  // None at all.
  const UniqueFd fd = connect();
  const auto hello = encode_hello(right());
  send_all(fd.get(), hello.data(), hello.size());
  const auto welcome = answer(fd.get());
  EXPECT_TRUE(welcome && welcome->status == Welcome::Status::no_memory);
  EXPECT_EQ(prepared_.count(), 0u);
}

// Whatever the other process writes into the memory, the engine stays in its ring, and gives the link up.
class MadPeer : public LocalStranger, public testing::WithParamInterface<int> {};

TEST_P(MadPeer, LosesItsLink) {
  std::unique_ptr<ShmSegment> segment;
  const UniqueFd fd = link_up(segment);
  EXPECT_EQ(segment->readable_process(), std::optional(::getpid()));
  std::vector<std::uint8_t> bytes;
  append_frame({0, {}, AckBody{0, 0}}, bytes);
  ShmWriter writer = segment->writer();
  const iovec part{bytes.data(), bytes.size()};
  ASSERT_EQ(writer.write({&part, 1}, [] {}), std::optional(bytes.size()));
  const std::uint8_t bell = 0;
  send_all(fd.get(), &bell, 1);
  ASSERT_TRUE(prepared_.get().empty());
  engine_->install(1, {});
  std::vector<float> data(4'000'000, 1);
  Awaited<OpResult> result;
  engine_->start(AllReduce{data.data(), data.data(), data.size()}.call(),
                 [result](OpId, const OpResult& of_op) { result.set(of_op); });
  switch (GetParam()) {
    case 0:
      segment->own().written = segment->own().written + limits::shm_ring_bytes + 1;
      break;
    case 1:
      segment->own().written = 0;  // backwards
      break;
    case 2:
      segment->own().written = UINT64_MAX;
      break;
    case 3:  // has read what was never written
      segment->own().read = std::uint64_t{1} << 40;
      break;
  }
  if (GetParam() == 3) {
    // So that there is something to write.
    EXPECT_TRUE(engine_->cancel(1));
  }
  send_all(fd.get(), &bell, 1);
  const Lost lost = lost_.get();
  EXPECT_EQ(lost.peer, 2u);
  EXPECT_NE(lost.reason.find("shared memory"), std::string::npos) << lost.reason;
  EXPECT_TRUE(closed_by_peer(fd.get()));
}

INSTANTIATE_TEST_SUITE_P(Positions, MadPeer, testing::Range(0, 4));

}  // namespace
}  // namespace pccl::test
