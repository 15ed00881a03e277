#include "fake_peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <stdexcept>

#include "transport/socket.h"

namespace pccl::test {
namespace {

constexpr int deadline_ms = 60'000;

void make_blocking(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  const timeval deadline{.tv_sec = deadline_ms / 1000, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
}

}  // namespace

UniqueFd connect_to(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("can't connect to the engine");
  }
  make_blocking(fd.get());
  return fd;
}

void send_all(int fd, const void* bytes, std::size_t size) {
  const auto* at = static_cast<const std::uint8_t*>(bytes);
  while (size > 0) {
    const ssize_t sent = ::send(fd, at, size, MSG_NOSIGNAL);
    if (sent <= 0) return;  // the engine hung up: what the test then looks for
    at += sent;
    size -= static_cast<std::size_t>(sent);
  }
}

bool receive_all(int fd, void* bytes, std::size_t size) {
  auto* at = static_cast<std::uint8_t*>(bytes);
  while (size > 0) {
    const ssize_t got = ::recv(fd, at, size, 0);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool closed_by_peer(int fd) {
  std::uint8_t byte;
  const ssize_t got = ::recv(fd, &byte, 1, 0);
  return got == 0 || (got < 0 && errno == ECONNRESET);
}

FakePeer::FakePeer(PeerId id) : id_(id), listener_(listen_tcp("127.0.0.1", 0)), port_(local_port(listener_.get())) {
  pings_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(50), [this] { return ended_; })) {
      if (!link_ || !is_lane_ || in_frame_) continue;
      std::vector<std::uint8_t> bytes;
      append_frame({0, {}, AckBody{chunks_received_, received_}}, bytes);
      send_all(link_.get(), bytes.data(), bytes.size());
    }
  });
}

FakePeer::~FakePeer() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  wake_.notify_one();
  pings_.join();
}

Hello FakePeer::accept_link() {
  pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&ready, 1, deadline_ms) != 1) throw std::runtime_error("nobody dials");
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  make_blocking(fd.get());
  HelloBytes bytes;
  if (!receive_all(fd.get(), bytes.data(), bytes.size())) throw std::runtime_error("no hello");
  const auto hello = decode_hello(bytes);
  if (!hello) throw std::runtime_error("bad hello");
  const auto welcome = encode_welcome({Welcome::Status::welcome, hello->link, hello->lanes});
  const std::lock_guard lock(mutex_);
  send_all(fd.get(), welcome.data(), welcome.size());
  is_lane_ = hello->kind == ConnectionKind::link;
  chunks_received_ = 0;
  link_ = std::move(fd);
  return *hello;
}

void FakePeer::send(Frame frame) {
  std::vector<std::uint8_t> bytes;
  const std::lock_guard lock(mutex_);
  if (!std::holds_alternative<AckBody>(frame.body)) frame.number = ++sent_;
  append_frame(frame, bytes);
  send_all(link_.get(), bytes.data(), bytes.size());
}

void FakePeer::send_data(Epoch epoch, OpKey key, const DataBody& body, const void* data) {
  const Header header = data_header({epoch, key, body});
  const std::lock_guard lock(mutex_);
  send_all(link_.get(), header.data(), header.size());
  send_all(link_.get(), data, body.bytes);
}

void FakePeer::send_raw(const std::vector<std::uint8_t>& bytes, bool in_frame) {
  const std::lock_guard lock(mutex_);
  in_frame_ = in_frame;
  send_all(link_.get(), bytes.data(), bytes.size());
}

void FakePeer::hang_up() {
  const std::lock_guard lock(mutex_);
  link_.reset();
}

Frame FakePeer::receive() {
  for (;;) {
    Header header;
    if (!receive_all(link_.get(), header.data(), header.size())) throw std::runtime_error("no frame");
    std::string error;
    const auto bytes = payload_bytes(header, error);
    if (!bytes) throw std::runtime_error("bad frame: " + error);
    payload.resize(*bytes);
    if (!receive_all(link_.get(), payload.data(), payload.size())) throw std::runtime_error("no payload");
    const auto frame = decode_frame(header, payload, error);
    if (!frame) throw std::runtime_error("bad frame: " + error);
    if (std::holds_alternative<AckBody>(frame->body)) continue;
    const std::lock_guard lock(mutex_);
    if (std::holds_alternative<DataBody>(frame->body)) {
      ++chunks_received_;
    } else {
      received_ = frame->number;
    }
    return *frame;
  }
}

}  // namespace pccl::test
