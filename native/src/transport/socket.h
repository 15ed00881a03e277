// TCP sockets as the engine uses them: non-blocking, closed on exec, and without a signal on a broken pipe.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace pccl {

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

// Throws EngineError: invalid_argument for a host that isn't an address of this machine, io when the system refuses.
// `congestion_control`: of the connections that come, too; empty: the system's; invalid_argument where it can't be had.
UniqueFd listen_tcp(const std::string& host, std::uint16_t port, const std::string& congestion_control = {});
std::uint16_t local_port(int fd);

// The address that `host` spells out, without asking anybody.
std::optional<Address> numeric_address(const std::string& host, std::uint16_t port);
// May ask a name server, and wait for it. Gives no address, and the reason in `error`, when there is none.
std::vector<Address> resolve_now(const std::string& host, std::uint16_t port, std::string& error);

// Starts to connect; on failure gives an empty descriptor and leaves the reason in `error`. A congestion control that
// listen_tcp has had is had here too.
UniqueFd start_connect(const Address& address, const std::string& congestion_control, std::string& error);
// What became of it, as an errno; 0: connected.
int connect_result(int fd);

// No delay for small frames, and an error instead of silence from a host that went away for this long.
void tune_data_socket(int fd, std::chrono::milliseconds silence);

// The system holds no more than limits::lane_unsent_bytes_max beyond what is on its way.
void limit_unsent(int fd);

// Both ends of the connection have one address.
bool same_machine(int fd);

std::string errno_text(int code);

}  // namespace pccl
