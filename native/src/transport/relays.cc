#include "transport/relays.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include "base/limits.h"
#include "transport/dial.h"

namespace pccl {

class Relays::Connection {
 public:
  Connection(Relays& relays, const Hello& hello, const Member& to, UniqueFd from)
      : relays_(relays), hello_(hello), sides_{Side(*this), Side(*this)} {
    sides_[0].fd = std::move(from);
    dial_.emplace(relays.loop_, relays.resolver_,
                  Dial::Request{.hello = hello,
                                .host = to.host,
                                .port = to.port,
                                .congestion_control = relays.congestion_control_,
                                .timeout = limits::dial_attempt_timeout,
                                .until = Dial::Until::hello_sent},
                  Dial::Outcome{.connected = [this](pccl::Connection out,
                                                    const Welcome&) { connected(std::move(out.fd)); },
                                .gave_up = [this](const std::string&, Dial::Failure) { relays_.end(*this); },
                                .gone = [this](const Welcome&) { relays_.end(*this); }});
  }

  const Hello& hello() const { return hello_; }

 private:
  struct Side final : EventLoop::Handler {
    explicit Side(Connection& of) : connection(of) {}
    void on_ready(std::uint32_t events) override { connection.on_ready(events); }

    Connection& connection;
    UniqueFd fd;
    EventLoop::Watch watch;
    // Read from this side and not yet written to the other one.
    std::vector<std::uint8_t> bytes;
    std::size_t written = 0;
    bool ended = false;     // nothing more comes from it
    bool told_end = false;  // the other one has been told so
  };

  void connected(UniqueFd fd) {
    dial_.reset();
    sides_[1].fd = std::move(fd);
    for (Side& side : sides_) side.watch = EventLoop::Watch(relays_.loop_, side.fd.get(), EPOLLIN, side);
    if (!sides_[0].watch.active() || !sides_[1].watch.active()) relays_.end(*this);
  }

  void on_ready(std::uint32_t events) {
    // What may be lost with a side that is gone is for the ends to find out, as with any connection.
    const bool gone = (events & (EPOLLERR | EPOLLHUP)) != 0;
    if (gone || !move(sides_[0], sides_[1]) || !move(sides_[1], sides_[0])) return relays_.end(*this);
    if (sides_[0].told_end && sides_[1].told_end) return relays_.end(*this);
    watch(sides_[0], sides_[1]);
    watch(sides_[1], sides_[0]);
  }

  static void watch(Side& side, const Side& other) {
    std::uint32_t events = 0;
    if (side.bytes.empty() && !side.ended) events |= EPOLLIN;
    if (!other.bytes.empty()) events |= EPOLLOUT;
    side.watch.set(events);
  }

  // One read and one write at most, so that others have their turn. False: a side is gone.
  static bool move(Side& from, Side& to) {
    if (from.bytes.empty() && !from.ended) {
      from.bytes.resize(limits::relay_buffer_bytes);
      const ssize_t got = ::recv(from.fd.get(), from.bytes.data(), from.bytes.size(), 0);
      from.bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
      if (got < 0 && errno != EAGAIN && errno != EINTR) return false;
      from.ended = got == 0;
    }
    if (!from.bytes.empty()) {
      const ssize_t sent =
          ::send(to.fd.get(), from.bytes.data() + from.written, from.bytes.size() - from.written, MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN || errno == EINTR;
      from.written += static_cast<std::size_t>(sent);
      if (from.written < from.bytes.size()) return true;
      from.bytes.clear();
      from.written = 0;
    }
    if (from.ended && !std::exchange(from.told_end, true)) ::shutdown(to.fd.get(), SHUT_WR);
    return true;
  }

  Relays& relays_;
  const Hello hello_;
  std::optional<Dial> dial_;
  std::array<Side, 2> sides_;
};

Relays::Relays(EventLoop& loop, Resolver& resolver, std::string congestion_control)
    : loop_(loop), resolver_(resolver), congestion_control_(std::move(congestion_control)) {}

Relays::~Relays() = default;

bool Relays::full() const { return connections_.size() >= limits::relay_connections_max; }

void Relays::add(const Hello& hello, const Member& to, UniqueFd from) {
  connections_.push_back(std::make_unique<Connection>(*this, hello, to, std::move(from)));
}

void Relays::keep(const std::vector<RelayPair>& pairs) {
  connections_.remove_if([&](const std::unique_ptr<Connection>& connection) {
    return !has_pair(pairs, connection->hello().from, connection->hello().to);
  });
}

bool Relays::has_pair(const std::vector<RelayPair>& pairs, PeerId a, PeerId b) {
  return std::any_of(pairs.begin(), pairs.end(), [&](const RelayPair& pair) {
    return (pair.a == a && pair.b == b) || (pair.a == b && pair.b == a);
  });
}

// It is in the middle of a call that led here, so it goes when that has returned.
void Relays::end(Connection& connection) {
  const auto found =
      std::find_if(connections_.begin(), connections_.end(), [&](const auto& at) { return at.get() == &connection; });
  if (found == connections_.end()) return;
  loop_.defer([dead = std::shared_ptr<Connection>(std::move(*found))] {});
  connections_.erase(found);
}

}  // namespace pccl
