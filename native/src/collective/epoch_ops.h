// The collectives of one epoch on this peer: agreement on the call, the flow of chunks, the commit, and the ways in
// which an op can fail. docs/protocol.md, section 2, has the rules. It knows nothing of algorithms (op.h). One thread.
//
// Commit. A peer that holds its whole result, and has every partner's word that it called the same, is done. In a
// small group, where all are partners, it tells all others. In larger ones it joins a dissemination (Hensgen, Finkel
// and Manber, "Two algorithms for barrier synchronization", 1988): in round k it tells rank i + 2^k, once it is done
// itself and has heard round k-1. Who has heard all the others, or every round, knows that all are done, and commits.
// In an op of two each tells the other.
//
// Abort. Only a member that isn't done may start one: without its word nobody can have committed, and, having
// aborted, it never gives it. So a member that is done but hasn't committed follows an abort that reaches it.
//
// Freeze. Nothing moves any more, no frame counts any more, and what this peer reports is final until the verdict:
// an op that isn't done never becomes so, one that is done commits by verdict only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/op.h"
#include "pccl/engine.h"
#include "transport/link.h"
#include "transport/mesh.h"

namespace pccl {

class EpochOps {
 public:
  struct Context {
    EventLoop& loop;
    Mesh& mesh;
    BufferPool& pool;
  };
  struct Events {
    // An op is over: nothing refers to its memory any more.
    std::function<void(OpId, const OpResult&)> settled;
    std::function<void(const StalledOp&)> stalled;
  };

  EpochOps(const View& view, const Context& context, Events events);

  const View& view() const { return view_; }
  void set_world(Epoch view_epoch, std::uint32_t world_size);

  void post(const Op::Request& request);
  // For an op that the caller withdrew before this epoch opened: it takes its number and fails for all.
  void post_cancelled(const CollectiveCall& call);
  // False: unknown here, or done.
  bool cancel(OpId id);
  // False: unknown here, or that peer has called it.
  bool abort_if_missing(const OpKey& key, PeerId peer);

  void on_control(Link& link, const Frame& frame);
  Lane::Target on_data(Link& link, const Frame& frame);
  void on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload);
  std::optional<Lane::Outgoing> next_data(Link& link);
  void on_unsent(Link& link, const ChunkId& chunk);

  bool frozen() const { return frozen_; }
  void freeze();
  std::vector<OpReport> reports() const;
  // Settles every op: by its verdict; without one it is aborted, because of `why`.
  void resolve(const std::vector<Verdict>& verdicts, const Error& why);
  void fail_all(const Error& why);

 private:
  struct Ready {
    std::uint32_t rank = 0;
    ReadyBody body;  // without its payload once the op has had it
  };
  // What is known of an op, posted here or not.
  struct Record final : Op::Wire {
    Record(EpochOps& epoch_ops, const OpKey& its_key) : ops(epoch_ops), key(its_key) {}
    void wake(std::uint32_t rank) override { ops.wake(rank); }
    void send_step(std::uint32_t rank, const StepBody& body) override { ops.send(ops.id_of(rank), key, body); }
    Link* link(std::uint32_t rank) override { return ops.mesh_.find(ops.id_of(rank)); }
    void schedule() override { ops.schedule(key); }
    void schedule_after(std::chrono::milliseconds delay) override {
      later = EventLoop::Timer(ops.loop_, delay, [this] { schedule(); });
    }
    bool has_called(std::uint32_t rank) const;
    // It has every partner's word too, so it stays done.
    bool done() const { return op && missing.empty() && op->done(); }

    EpochOps& ops;
    const OpKey key;
    std::unique_ptr<Op> op;  // null: not posted here yet
    std::vector<Ready> ready;
    std::vector<std::uint32_t> missing;     // partners that haven't called yet
    std::uint32_t heard_rounds = 0;         // bit k: round k
    std::vector<std::uint32_t> heard_from;  // who told all that it is done
    std::uint32_t rounds_sent = 0;
    std::optional<AbortReason> abort;
    EventLoop::Timer later;
  };
  using Records = std::map<OpKey, Record>;

  PeerId id_of(std::uint32_t rank) const { return view_.ring[rank].id; }
  PeerId at_distance(std::uint32_t distance) const { return id_of((rank_ + distance) % ranks_); }
  // Ascending.
  std::vector<PeerId> ids_of(const std::vector<std::uint32_t>& ranks) const;
  // The rank of a peer that this one is linked with.
  std::optional<std::uint32_t> linked_rank(PeerId peer) const;
  bool settled(const OpKey& key) const;
  Record& enter(const OpKey& key) { return records_.try_emplace(key, *this, key).first->second; }
  // The record of an op that is not over; makes one for an op that isn't posted here. Null: over, or too many.
  Record* record_for(Link& link, const OpKey& key);
  void forget_early(Records::iterator at);
  std::optional<Error> refusal(const CollectiveCall& call) const;
  OpKey key_of(const CollectiveCall& call) const;
  std::optional<OpKey> new_key(const CollectiveCall& call);
  Op::Seat seat_for(const CollectiveCall& call) const;

  void on_ready(Link& link, std::uint32_t rank, const OpKey& key, const ReadyBody& body);
  void on_step(Link& link, std::uint32_t rank, const OpKey& key, const StepBody& body);
  void on_done(Link& link, std::uint32_t rank, const OpKey& key, const DoneBody& body);
  void on_abort(Link& link, const OpKey& key, const AbortBody& body);

  // False: the op was aborted, and the record is gone.
  bool take_ready(Record& record, Ready& ready);
  void advance_commit(Record& record);
  void abort(Record& record, const AbortReason& reason);
  void flood(const OpKey& key, const AbortReason& reason);
  void schedule(const OpKey& key);
  void do_work();
  void watch_for_stall(const OpKey& key);
  void report_stalls();
  void settle(Record& record, std::optional<Error> error, OpState state);
  void release(const Op& op);
  void send(PeerId to, const OpKey& key, const decltype(Frame::body)& body);
  void wake(std::uint32_t rank);
  std::string name(const Record& record) const;
  Transport transport_of(const Op& op) const;

  View view_;
  EventLoop& loop_;
  Mesh& mesh_;
  BufferPool& pool_;
  Events events_;
  std::uint32_t rank_ = 0;
  std::uint32_t ranks_ = 0;
  std::uint32_t rounds_ = 0;
  const Hosts hosts_;
  std::map<PeerId, std::uint32_t> linked_;
  bool frozen_ = false;

  Records records_;
  std::size_t early_records_ = 0;  // those without an op
  std::size_t early_payload_bytes_ = 0;
  std::map<OpKey, std::uint32_t> next_seq_;  // by a key whose seq is 0
  std::deque<OpReport> settled_;
  // When which op will have waited for long, in order.
  std::deque<std::pair<EventLoop::Clock::time_point, OpKey>> stall_watch_;
  EventLoop::Timer stall_timer_;
  std::deque<OpKey> scheduled_;
  EventLoop::Timer work_;
  std::map<PeerId, OpKey> last_sent_;  // whose chunk went last to whom: the next op in order has its turn
};

}  // namespace pccl
