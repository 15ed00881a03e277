#include "transport/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <system_error>

#include "base/limits.h"
#include "pccl/engine.h"

namespace pccl {
namespace {

constexpr int listen_backlog = 512;

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using AddressList = std::unique_ptr<addrinfo, FreeAddresses>;

AddressList look_up(const std::string& host, std::uint16_t port, int flags, int& result) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  result = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  return AddressList(list);
}

Address to_address(const addrinfo& info) {
  Address address;
  std::memcpy(&address.storage, info.ai_addr, info.ai_addrlen);
  address.bytes = info.ai_addrlen;
  return address;
}

void set_option(int fd, int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); }

// False: errno says why.
bool set_congestion_control(int fd, const std::string& name) {
  return name.empty() ||
         ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size())) == 0;
}

std::string first_line(const char* file) {
  std::string line;
  std::getline(std::ifstream(file) >> std::ws, line);
  return line.empty() ? "unknown" : line;
}

// Loading a kernel module is tried by the kernel itself, where this user may.
[[noreturn]] void refuse_congestion_control(const std::string& name, int code) {
  const std::string what = "congestion control \"" + name + "\": ";
  const std::string why =
      code == EPERM ? "this user may choose only " + first_line("/proc/sys/net/ipv4/tcp_allowed_congestion_control") +
                          " (net.ipv4.tcp_allowed_congestion_control)"
                    : errno_text(code) + "; this system has " +
                          first_line("/proc/sys/net/ipv4/tcp_available_congestion_control");
  throw EngineError({ErrorCode::invalid_argument, what + why, {}});
}

}  // namespace

UniqueFd listen_tcp(const std::string& host, std::uint16_t port, const std::string& congestion_control) {
  const std::string where = "listen on " + host + ":" + std::to_string(port) + ": ";
  int result = 0;
  const AddressList list = look_up(host, port, AI_PASSIVE, result);
  if (!list) throw EngineError({ErrorCode::invalid_argument, where + ::gai_strerror(result), {}});
  UniqueFd fd(::socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) throw EngineError({ErrorCode::io, where + errno_text(errno), {}});
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // "::" means every address, the older ones too, whatever the system's default is.
  if (list->ai_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (!set_congestion_control(fd.get(), congestion_control)) refuse_congestion_control(congestion_control, errno);
  if (::bind(fd.get(), list->ai_addr, list->ai_addrlen) != 0 || ::listen(fd.get(), listen_backlog) != 0) {
    throw EngineError({ErrorCode::io, where + errno_text(errno), {}});
  }
  return fd;
}

std::uint16_t local_port(int fd) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &bytes);
  const auto port = storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                                  : reinterpret_cast<sockaddr_in*>(&storage)->sin_port;
  return ntohs(port);
}

std::optional<Address> numeric_address(const std::string& host, std::uint16_t port) {
  int result = 0;
  const AddressList list = look_up(host, port, AI_NUMERICHOST, result);
  if (!list) return std::nullopt;
  return to_address(*list);
}

std::vector<Address> resolve_now(const std::string& host, std::uint16_t port, std::string& error) {
  int result = 0;
  const AddressList list = look_up(host, port, 0, result);
  std::vector<Address> addresses;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) addresses.push_back(to_address(*at));
  if (addresses.empty()) error = "host name " + host + ": " + ::gai_strerror(result);
  return addresses;
}

UniqueFd start_connect(const Address& address, const std::string& congestion_control, std::string& error) {
  UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd && set_congestion_control(fd.get(), congestion_control) && (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.bytes) == 0 ||
             errno == EINPROGRESS)) {
    return fd;
  }
  error = errno_text(errno);
  return UniqueFd();
}

int connect_result(int fd) {
  int code = 0;
  socklen_t bytes = sizeof code;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &bytes) != 0) return errno;
  return code;
}

void tune_data_socket(int fd, std::chrono::milliseconds silence) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(silence.count()));
  // An idle connection notices a host that vanished within about the same time; the kernel counts whole seconds.
  const auto seconds = [&](int parts) { return std::max(1, static_cast<int>(silence.count() / 1000 / parts)); };
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds(2));
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds(6));
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

void limit_unsent(int fd) { set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, limits::lane_unsent_bytes_max); }

bool same_machine(int fd) {
  sockaddr_storage own{};
  sockaddr_storage other{};
  socklen_t own_bytes = sizeof own;
  socklen_t other_bytes = sizeof other;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_bytes) != 0 ||
      ::getpeername(fd, reinterpret_cast<sockaddr*>(&other), &other_bytes) != 0 || own.ss_family != other.ss_family) {
    return false;
  }
  if (own.ss_family == AF_INET6) {
    return std::memcmp(&reinterpret_cast<sockaddr_in6&>(own).sin6_addr,
                       &reinterpret_cast<sockaddr_in6&>(other).sin6_addr, sizeof(in6_addr)) == 0;
  }
  return reinterpret_cast<sockaddr_in&>(own).sin_addr.s_addr == reinterpret_cast<sockaddr_in&>(other).sin_addr.s_addr;
}

std::string errno_text(int code) { return std::generic_category().message(code); }

}  // namespace pccl
