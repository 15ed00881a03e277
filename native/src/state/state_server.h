// Shows the exports to peers that ask. Bytes go straight from the exported memory into the socket, a bounded piece per
// turn of the loop, so that ops go on meanwhile.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "base/unique_fd.h"
#include "state/progress_watch.h"
#include "state/state_exports.h"
#include "state/state_wire.h"
#include "transport/event_loop.h"

namespace pccl {

class StateServer {
 public:
  StateServer(EventLoop& loop, StateExports& exports) : loop_(loop), exports_(exports) {}

  bool full() const { return readers_.size() >= limits::state_readers_max; }
  void add(UniqueFd fd);
  // Connections that are in the middle of the export's bytes end: the other side sees a source that broke.
  void drop_readers_of(OpId export_id);
  void drop_all() { readers_.clear(); }

 private:
  struct Reader final : EventLoop::Handler {
    Reader(StateServer& of, UniqueFd connection);
    void on_ready(std::uint32_t) override { server.on_ready(*this); }

    StateServer& server;
    std::list<Reader>::iterator self;
    UniqueFd fd;
    EventLoop::Watch watch;
    // For the one who asks nothing, and for the one who doesn't take what he has asked for.
    std::optional<ProgressWatch> idle;
    std::optional<ProgressWatch> progress;
    std::vector<std::uint8_t> requests;  // read, not answered yet
    std::size_t requests_bytes = 0;

    // The answer that is under way.
    bool answering = false;
    state_wire::ReplyBytes reply;
    StateExports::Answer answer;
    std::vector<std::span<const std::uint8_t>> unsent;
  };

  void on_ready(Reader& reader);
  // The steps of a connection. False: the connection is over.
  bool read_requests(Reader& reader);
  bool answer_next(Reader& reader);
  bool send_answer(Reader& reader);
  void watch(Reader& reader);

  EventLoop& loop_;
  StateExports& exports_;
  std::list<Reader> readers_;
};

}  // namespace pccl
