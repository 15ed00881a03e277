// The all-reduces of one epoch on this peer: agreement on the call, the flow of chunks, the commit, and the ways in
// which an op can fail. docs/protocol.md, section 2, has the rules. One thread.
//
// Commit. A peer that holds its whole result is done and joins a dissemination (Hensgen, Finkel and Manber, "Two
// algorithms for barrier synchronization", 1988): in round k it tells rank i + 2^k, once it is done itself and has
// heard round k-1. Who has heard every round knows that all are done, and commits.
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
#include <unordered_map>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/all_reduce_op.h"
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
  std::uint32_t rank() const { return rank_; }

  void post(const AllReduceOp::Request& request);
  // For an op that the caller withdrew before this epoch opened: it takes its number and fails for all.
  void post_cancelled(std::uint64_t tag);
  // False: unknown here, or done.
  bool cancel(OpId id);
  // False: unknown here, or that neighbour has called it.
  bool abort_if_missing(OpKey key, PeerId peer);

  void on_control(Link& link, const Frame& frame);
  Lane::Target on_data(Link& link, const Frame& frame);
  void on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload);
  std::optional<Lane::Outgoing> next_data(Link& link);
  void on_unsent(const ChunkId& chunk);

  bool frozen() const { return frozen_; }
  void freeze();
  std::vector<OpReport> reports() const;
  // Settles every op: by its verdict; without one it is aborted, because of `why`.
  void resolve(const std::vector<Verdict>& verdicts, const Error& why);
  void fail_all(const Error& why);

 private:
  // What is known of an op, posted here or not.
  struct Record {
    std::unique_ptr<AllReduceOp> op;  // null: not posted here yet
    std::optional<Descriptor> previous;
    std::optional<Descriptor> next;
    std::uint32_t heard = 0;  // bit k: round k
    std::uint32_t rounds_sent = 0;
    std::optional<AbortReason> abort;
  };
  using Records = std::map<OpKey, Record>;

  PeerId at_distance(std::uint32_t distance) const { return view_.ring[(rank_ + distance) % ranks_].id; }
  PeerId previous() const { return at_distance(ranks_ - 1); }
  PeerId next() const { return at_distance(1); }
  bool settled(OpKey key) const;
  // The record of an op that is not over; makes one for an op that isn't posted here. Null: over, or too many.
  Record* record_for(Link& link, OpKey key);
  std::optional<OpKey> new_key(std::uint64_t tag);

  void on_ready(Link& link, OpKey key, const ReadyBody& body);
  void on_done(Link& link, OpKey key, const DoneBody& body);
  void on_abort(Link& link, OpKey key, const AbortBody& body);

  bool descriptors_agree(OpKey key, Record& record);
  void advance_commit(Records::iterator at);
  void abort(Records::iterator at, const AbortReason& reason);
  void flood(OpKey key, const AbortReason& reason);
  // Neighbours that haven't called the op yet.
  std::vector<PeerId> missing(const Record& record) const;
  void watch_for_stall(OpKey key);
  void report_stalls();
  void settle(Records::iterator at, std::optional<Error> error, OpState state);
  void send(PeerId to, OpKey key, const decltype(Frame::body)& body);
  void wake(PeerId peer);
  std::string name(OpKey key) const;
  Error abort_error(OpKey key, const AbortReason& reason) const;

  View view_;
  EventLoop& loop_;
  Mesh& mesh_;
  BufferPool& pool_;
  Events events_;
  std::uint32_t rank_ = 0;
  std::uint32_t ranks_ = 0;
  std::uint32_t rounds_ = 0;
  std::vector<PeerId> linked_;
  bool frozen_ = false;

  Records records_;
  std::size_t early_records_ = 0;  // those without an op
  std::unordered_map<std::uint64_t, std::uint32_t> next_seq_;
  std::deque<OpReport> settled_;
  // When which op will have waited for long, in order.
  std::deque<std::pair<EventLoop::Clock::time_point, OpKey>> stall_watch_;
  EventLoop::Timer stall_timer_;
  OpKey last_sent_;  // whose chunk was sent last: the next op in order has its turn
};

}  // namespace pccl
