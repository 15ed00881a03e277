// What the I/O thread does: it holds the views, the links, the open epoch and the transfers of state, and routes
// what arrives between them. Every method belongs to that thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/buffer_pool.h"
#include "base/worker_pool.h"
#include "collective/epoch_ops.h"
#include "pccl/engine.h"
#include "probe/path_probe.h"
#include "probe/probe_server.h"
#include "state/state_exports.h"
#include "state/state_fetch.h"
#include "state/state_server.h"
#include "transport/acceptor.h"
#include "transport/event_loop.h"
#include "transport/mesh.h"
#include "transport/relays.h"
#include "transport/resolver.h"

namespace pccl {

class Core final : Link::Owner, Acceptor::Owner {
 public:
  // What the engine's other side hears, on the I/O thread.
  struct Events {
    std::function<void(OpId, const OpResult&)> finished;
    std::function<void(const InstalledView&)> installed;
    std::function<void(Epoch, const std::vector<LinkFailure>&)> prepared;
    std::function<void(Epoch, PeerId, const std::string& reason)> link_lost;
    std::function<void(const StalledOp&)> stalled;
    std::function<void(std::uint64_t, const ProbeResult&)> probed;
  };

  // `local_listener`: of this host's processes; empty: only TCP.
  Core(EventLoop& loop, UniqueFd listener, UniqueFd local_listener, const EngineOptions& options, Events events);

  void start(const Op::Request& request);
  bool cancel(OpId id);

  std::variant<std::vector<OpReport>, Error> prepare(const View& view, std::chrono::milliseconds timeout);
  std::optional<Error> install(Epoch epoch, const std::vector<Verdict>& verdicts);
  std::optional<Error> set_world(Epoch view_epoch, std::uint32_t world_size);
  bool abort_if_missing(Epoch epoch, const OpKey& key, PeerId peer);

  std::optional<Error> probe(std::uint64_t id, const Member& target, ProbeDirection direction);

  void export_state(OpId id, std::vector<ExportTensor> tensors) { exports_.add(id, std::move(tensors)); }
  std::optional<std::vector<Hash128>> hashes(OpId id) const { return exports_.hashes(id); }
  std::optional<std::string> changed_tensor(OpId id) const { return exports_.changed_tensor(id); }
  std::optional<StateExports::Released> release_state(OpId id);
  // Why the call can't be; nothing: it can.
  std::optional<std::string> refuse_fetch(const StateFetchCall& call) const;
  void fetch_state(OpId id, const StateFetchCall& call);
  std::optional<std::string> refuse_commit(OpId export_id) const;
  void commit_state(OpId id, OpId export_id);

  // Closing goes in this order: stop_hashing, join_helpers (on the closing thread), fail_all.
  void stop_hashing();
  void join_helpers();
  void fail_all();

 private:
  // Posted while no epoch is open.
  struct Waiting {
    Op::Request request;
    bool cancelled = false;  // the caller has been told; its number in the next epoch is still to be taken
  };
  struct Prepared {
    View view;
    // From peers that opened the epoch before this one.
    std::vector<std::pair<PeerId, Frame>> early_frames;
  };

  void on_control(Link& link, const Frame& frame) override;
  Lane::Target on_data(Link& link, const Frame& frame) override;
  void on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload) override;
  std::optional<Lane::Outgoing> next_data(Link& link) override;
  void on_unsent(Link& link, const ChunkId& chunk) override;
  void on_up(Link& link) override;
  void on_outdated(Link& link, LinkId later) override;
  void on_broken(Link& link, const std::string& reason) override;

  Acceptor::Judgement judge(const Hello& hello, Path path) override;
  Welcome welcome(const Hello& hello) override;
  void accepted(const Hello& hello, Connection connection) override;
  void forward(const Hello& hello, UniqueFd fd) override;

  bool open() const { return epoch_ && !epoch_->frozen(); }
  Epoch last_known_epoch() const;
  const View* known_view(Epoch epoch) const;
  void open_epoch(Prepared prepared);
  void start_waiting();
  void post(const Op::Request& request);
  std::optional<StateRoute> route_to(const Member& member);
  void fetch_ended(OpId id, const OpResult& result);
  bool is_fetching(OpId export_id) const;

  EventLoop& loop_;
  Events events_;
  Resolver resolver_;
  WorkerPool workers_;  // hash and copy shared state
  BufferPool pool_;     // backups of ops in place
  BufferPool scratch_;  // chunks on their way to being combined: one per lane that is receiving
  Mesh mesh_;
  Relays relays_;
  std::unique_ptr<EpochOps> epoch_;
  std::optional<Prepared> prepared_;
  std::deque<Waiting> waiting_;
  StateExports exports_;
  StateServer server_;
  const std::uint32_t probe_connections_;
  const std::string congestion_control_;
  ProbeServer probe_server_;
  std::map<std::uint64_t, std::unique_ptr<PathProbe>> probes_;
  std::map<OpId, std::unique_ptr<StateFetch>> fetches_;
  Acceptor acceptor_;
  std::optional<Acceptor> local_acceptor_;
};

}  // namespace pccl
