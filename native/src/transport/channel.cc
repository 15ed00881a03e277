#include "transport/channel.h"

#include <utility>

#include "transport/shm_channel.h"
#include "transport/tcp_channel.h"

namespace pccl {

std::unique_ptr<Channel> open_channel(Connection connection) {
  if (connection.segment == nullptr) return std::make_unique<TcpChannel>(std::move(connection.fd));
  return std::make_unique<ShmChannel>(std::move(connection.fd), std::move(connection.segment));
}

}  // namespace pccl
