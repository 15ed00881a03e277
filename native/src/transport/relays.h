// Connections that this peer forwards between two others that can't reach each other. A Hello for another peer is
// answered by nobody here: the bytes, Hello and Welcome too, go on as they came, so that the two ends notice nothing.
//
// Each connection holds at most two buffers of relay_buffer_bytes; a side that doesn't read holds up only its own.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "pccl/engine.h"
#include "transport/event_loop.h"
#include "transport/handshake.h"
#include "transport/resolver.h"

namespace pccl {

class Relays {
 public:
  Relays(EventLoop& loop, Resolver& resolver, std::string congestion_control);
  ~Relays();
  Relays(const Relays&) = delete;

  bool full() const;
  // `from` has said `hello`, which is for `to`.
  void add(const Hello& hello, const Member& to, UniqueFd from);
  // Ends the connections between other pairs.
  void keep(const std::vector<RelayPair>& pairs);

  static bool has_pair(const std::vector<RelayPair>& pairs, PeerId a, PeerId b);

 private:
  class Connection;

  void end(Connection& connection);

  EventLoop& loop_;
  Resolver& resolver_;
  const std::string congestion_control_;
  std::list<std::unique_ptr<Connection>> connections_;
};

}  // namespace pccl
