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
namespace {

// Questions read ahead of their answers.
constexpr std::size_t requests_read_max = 64;

}  // namespace

StateServer::Reader::Reader(StateServer& of, UniqueFd connection)
    : server(of),
      fd(std::move(connection)),
      watch(of.loop_, fd.get(), EPOLLIN, *this),
      requests(requests_read_max * state_wire::request_bytes) {}

void StateServer::add(UniqueFd fd) {
  Reader& reader = readers_.emplace_back(*this, std::move(fd));
  reader.self = std::prev(readers_.end());
  watch(reader);
}

void StateServer::drop_readers_of(OpId export_id) {
  readers_.remove_if([export_id](const Reader& reader) { return reader.answering && reader.answer.id == export_id; });
}

void StateServer::on_ready(Reader& reader) {
  const bool before = reader.answering;
  const bool alive = reader.answering ? send_answer(reader) : read_requests(reader);
  if (!alive) {
    readers_.erase(reader.self);
    return;
  }
  if (reader.answering != before) watch(reader);
}

// What the connection waits for has changed.
void StateServer::watch(Reader& reader) {
  reader.watch.set(reader.answering ? EPOLLOUT : EPOLLIN);
  auto& unwatched = reader.answering ? reader.idle : reader.progress;
  auto& watched = reader.answering ? reader.progress : reader.idle;
  unwatched.reset();
  const auto patience = reader.answering ? limits::state_progress_timeout : limits::state_idle_timeout;
  watched.emplace(loop_, patience, [this, &reader] { readers_.erase(reader.self); });
}

bool StateServer::read_requests(Reader& reader) {
  const std::size_t room = reader.requests.size() - reader.requests_bytes;
  const ssize_t result = ::recv(reader.fd.get(), reader.requests.data() + reader.requests_bytes, room, 0);
  if (result < 0) return errno == EAGAIN || errno == EINTR;
  if (result == 0) return false;
  reader.idle->note();
  reader.requests_bytes += static_cast<std::size_t>(result);
  return answer_next(reader);
}

// Begins to answer the first of the questions that have been read, if it is there as a whole.
bool StateServer::answer_next(Reader& reader) {
  std::size_t at = 0;
  while (!reader.answering && reader.requests_bytes - at >= state_wire::request_bytes) {
    const auto request = state_wire::decode_request(
        std::span<const std::uint8_t, state_wire::request_bytes>(reader.requests.data() + at, state_wire::request_bytes));
    if (!request) return false;
    at += state_wire::request_bytes;
    if (request->kind == state_wire::Kind::stale) exports_.on_stale(*request);
    if (request->kind == state_wire::Kind::read) exports_.on_read(*request);
    if (!request->answered()) continue;
    auto answer = exports_.answer(*request);
    const std::uint64_t bytes = answer ? request->answer_bytes() : 0;
    reader.answering = true;
    reader.answer = answer ? std::move(*answer) : StateExports::Answer{};
    reader.reply = state_wire::encode_reply(
        {answer ? state_wire::Status::found : state_wire::Status::unknown, bytes});
    reader.unsent.assign({reader.reply});
    for (const auto& piece : reader.answer.pieces) reader.unsent.push_back(piece);
    if (!reader.answer.own.empty()) reader.unsent.push_back(reader.answer.own);
  }
  reader.requests_bytes -= at;
  std::memmove(reader.requests.data(), reader.requests.data() + at, reader.requests_bytes);
  return true;
}

bool StateServer::send_answer(Reader& reader) {
  std::array<iovec, limits::state_request_leaves_max + 2> parts;
  std::size_t count = 0;
  std::size_t left = limits::link_turn_bytes;
  for (const auto& piece : reader.unsent) {
    if (count == parts.size() || left == 0) break;
    const std::size_t bytes = std::min(piece.size(), left);
    parts[count++] = {const_cast<std::uint8_t*>(piece.data()), bytes};
    left -= bytes;
  }
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t result = ::sendmsg(reader.fd.get(), &message, MSG_NOSIGNAL);
  if (result < 0) return errno == EAGAIN || errno == EINTR;
  reader.progress->note();
  auto sent = static_cast<std::size_t>(result);
  std::size_t whole = 0;
  std::uint64_t payload = 0;
  for (auto& piece : reader.unsent) {
    const std::size_t bytes = std::min(piece.size(), sent);
    const bool of_reply = piece.data() >= reader.reply.data() && piece.data() < reader.reply.data() + reader.reply.size();
    if (!of_reply) payload += bytes;
    piece = piece.subspan(bytes);
    sent -= bytes;
    if (!piece.empty()) break;
    ++whole;
  }
  reader.unsent.erase(reader.unsent.begin(), reader.unsent.begin() + static_cast<std::ptrdiff_t>(whole));
  if (payload > 0) exports_.served(reader.answer.id, payload);
  if (!reader.unsent.empty()) return true;
  reader.answering = false;
  return answer_next(reader);  // one that has been read already
}

}  // namespace pccl
