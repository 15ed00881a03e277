// The least that a ring all-reduce over TCP takes: f32 sum, in place, between PEERS processes on loopback, with plain
// sockets. No agreement that all are done, no undo, no way to go on when a peer is lost.
//
//   socket_ring PEERS BYTES
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "forked.h"

namespace {

constexpr std::size_t chunk_bytes = 256 * 1024;

void must(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::exit(1);
}

int listen_on_loopback(sockaddr_in& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t length = sizeof address;
  must(::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 && ::listen(fd, 1) == 0, "listen");
  must(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0, "getsockname");
  return fd;
}

struct Ring {
  int rank, size, next, previous;
  std::vector<float> scratch = std::vector<float>(chunk_bytes / sizeof(float));

  // Sends one slice to the next rank while it receives another from the previous one, to add it or to keep it.
  void exchange(const float* send, std::size_t send_count, float* into, std::size_t recv_count, bool add) {
    const char* out = reinterpret_cast<const char*>(send);
    std::size_t out_left = send_count * sizeof(float);
    std::size_t in_left = recv_count * sizeof(float);
    std::size_t have = 0;  // bytes of the chunk that is being received
    while (out_left > 0 || in_left > 0) {
      bool stuck = true;
      if (out_left > 0) {
        const ssize_t sent = ::send(next, out, std::min(out_left, chunk_bytes), MSG_NOSIGNAL);
        must(sent > 0 || errno == EAGAIN, "send");
        if (sent > 0) {
          stuck = false;
          out += sent;
          out_left -= static_cast<std::size_t>(sent);
        }
      }
      if (in_left > 0) {
        const std::size_t chunk = std::min(chunk_bytes, in_left);
        char* const target = reinterpret_cast<char*>(add ? scratch.data() : into);
        const ssize_t received = ::recv(previous, target + have, chunk - have, 0);
        must(received > 0 || (received < 0 && errno == EAGAIN), "recv");
        if (received > 0) {
          stuck = false;
          have += static_cast<std::size_t>(received);
        }
        if (have == chunk) {
          const std::size_t count = chunk / sizeof(float);
          for (std::size_t i = 0; add && i < count; ++i) into[i] += scratch[i];
          into += count;
          in_left -= chunk;
          have = 0;
        }
      }
      if (!stuck) continue;
      pollfd waits[] = {{in_left > 0 ? previous : -1, POLLIN, 0}, {out_left > 0 ? next : -1, POLLOUT, 0}};
      must(::poll(waits, 2, -1) > 0, "poll");
    }
  }

  // Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009).
  void all_reduce(std::vector<float>& data) {
    const auto begin = [&](int slice) { return data.size() * static_cast<std::size_t>(slice) / size; };
    for (int step = 0; step < 2 * (size - 1); ++step) {
      const int out = (rank - step + 2 * size) % size;
      const int in = (out - 1 + size) % size;
      exchange(data.data() + begin(out), begin(out + 1) - begin(out), data.data() + begin(in),
               begin(in + 1) - begin(in), step < size - 1);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int size = argc == 3 ? std::atoi(argv[1]) : 0;
  const std::size_t bytes = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 0;
  if (size < 2 || bytes < sizeof(float)) {
    std::fprintf(stderr, "usage: %s PEERS BYTES\n", argv[0]);
    return 2;
  }
  std::vector<sockaddr_in> addresses(static_cast<std::size_t>(size));
  std::vector<int> listeners;
  for (sockaddr_in& address : addresses) listeners.push_back(listen_on_loopback(address));
  peers::Ranks ranks(size);
  return ranks.run([&](int rank) {
    ranks.be(rank);
    const int next = ::socket(AF_INET, SOCK_STREAM, 0);
    const auto* const address = reinterpret_cast<sockaddr*>(&addresses[static_cast<std::size_t>((rank + 1) % size)]);
    must(::connect(next, address, sizeof(sockaddr_in)) == 0, "connect");
    const int previous = ::accept(listeners[static_cast<std::size_t>(rank)], nullptr, nullptr);
    for (const int fd : {next, previous}) {
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      must(fd >= 0 && ::fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "accept");
    }
    Ring ring{rank, size, next, previous};
    std::vector<float> data(bytes / sizeof(float));
    peers::fill(data.data(), data.size(), static_cast<std::uint32_t>(rank));
    ring.all_reduce(data);
    peers::check_sum(data.data(), data.size(), static_cast<std::uint32_t>(size));
    std::fill(data.begin(), data.end(), 0.0f);
    peers::measure(
        rank, [&] { ring.all_reduce(data); }, [&](double* values, std::size_t count) { ranks.max(values, count); });
  });
}
