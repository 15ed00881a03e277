// Unix stream sockets in the abstract namespace, by which peers of one network namespace find each other. A data
// port has the one that is named after it. Anybody there can take a free name, or connect; so both sides go by what
// the kernel says of the other one's user before they send, or read, a byte.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/unique_fd.h"
#include "transport/socket.h"

namespace pccl {

Address local_address(std::uint16_t data_port);
// Empty, with an errno: the system refuses, or somebody has taken the name.
UniqueFd listen_local(std::uint16_t data_port);

// The process that has connected, or that listens; 0 for one that this process's namespace doesn't show.
struct LocalPeer {
  pid_t process = 0;
  bool same_user = false;
};
LocalPeer local_peer(int fd);

// As send and recv, with a descriptor beside the bytes.
ssize_t send_with_descriptor(int fd, std::span<const std::uint8_t> bytes, int descriptor);
// `descriptor` changes when one comes.
ssize_t receive_with_descriptor(int fd, std::span<std::uint8_t> bytes, UniqueFd& descriptor);

}  // namespace pccl
