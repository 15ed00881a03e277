#include "state/state_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/limits.h"

namespace pccl {

StateServer::Reader::Reader(StateServer& of, UniqueFd connection)
    : server(of),
      fd(std::move(connection)),
      watch(of.loop_, fd.get(), EPOLLIN, *this),
      progress(of.loop_, limits::state_progress_timeout, [this] { server.readers_.erase(self); }),
      requests(state_wire::request_bytes_max) {}

void StateServer::add(UniqueFd fd) {
  Reader& reader = readers_.emplace_back(*this, std::move(fd));
  reader.self = std::prev(readers_.end());
}

void StateServer::drop_readers_of(OpId export_id) {
  readers_.remove_if(
      [export_id](const Reader& reader) { return reader.answering && reader.found && reader.found->id == export_id; });
}

void StateServer::on_ready(Reader& reader) {
  const bool alive = reader.answering ? send_answer(reader) : read_requests(reader);
  if (!alive) {
    readers_.erase(reader.self);
    return;
  }
  reader.watch.set(reader.answering ? EPOLLOUT : EPOLLIN);
}

bool StateServer::read_requests(Reader& reader) {
  const std::size_t room = reader.requests.size() - reader.requests_bytes;
  const ssize_t result = ::recv(reader.fd.get(), reader.requests.data() + reader.requests_bytes, room, 0);
  if (result < 0) return errno == EAGAIN || errno == EINTR;
  if (result == 0) return false;
  reader.progress.note();
  reader.requests_bytes += static_cast<std::size_t>(result);
  return start_answer(reader);
}

bool StateServer::start_answer(Reader& reader) {
  if (reader.requests_bytes < state_wire::request_header_bytes) return true;
  const auto size = state_wire::request_bytes(std::span<const std::uint8_t, state_wire::request_header_bytes>(
      reader.requests.data(), state_wire::request_header_bytes));
  if (!size) return false;
  if (reader.requests_bytes < *size) return true;
  const auto request = state_wire::decode_request({reader.requests.data(), *size});
  reader.requests_bytes -= *size;
  std::memmove(reader.requests.data(), reader.requests.data() + *size, reader.requests_bytes);

  reader.answering = true;
  reader.found = exports_.find(request);
  const std::uint64_t bytes = reader.found ? request.bytes : 0;
  reader.reply =
      state_wire::encode_reply({reader.found ? state_wire::Status::found : state_wire::Status::unknown, bytes});
  reader.answer_bytes = state_wire::reply_bytes + bytes;
  reader.answer_sent = 0;
  return true;
}

bool StateServer::send_answer(Reader& reader) {
  std::array<iovec, 2> parts;
  std::size_t count = 0;
  const std::uint64_t of_reply = std::min<std::uint64_t>(reader.answer_sent, reader.reply.size());
  if (of_reply < reader.reply.size()) {
    parts[count++] = {reader.reply.data() + of_reply, reader.reply.size() - of_reply};
  }
  const std::uint64_t of_tensor = reader.answer_sent - of_reply;
  const std::uint64_t tensor_left = reader.answer_bytes - reader.reply.size() - of_tensor;
  if (tensor_left > 0) {
    auto* const from = const_cast<std::uint8_t*>(reader.found->data) + of_tensor;
    parts[count++] = {from, std::min<std::size_t>(tensor_left, limits::link_turn_bytes)};
  }
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t result = ::sendmsg(reader.fd.get(), &message, MSG_NOSIGNAL);
  if (result < 0) return errno == EAGAIN || errno == EINTR;
  reader.progress.note();
  reader.answer_sent += static_cast<std::uint64_t>(result);
  const std::uint64_t of_tensor_now =
      reader.answer_sent - std::min<std::uint64_t>(reader.answer_sent, reader.reply.size());
  if (reader.found) exports_.served(reader.found->id, of_tensor_now - of_tensor);
  if (reader.answer_sent < reader.answer_bytes) return true;
  reader.answering = false;
  reader.found.reset();
  return start_answer(reader);  // one that has been read already
}

}  // namespace pccl
