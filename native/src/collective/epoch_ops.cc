#include "collective/epoch_ops.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/dtype.h"
#include "base/limits.h"
#include "transport/ring_links.h"

namespace pccl {
namespace {

std::string describe(const Descriptor& descriptor) {
  return std::string(reduce_op_name(descriptor.op)) + " of " + std::to_string(descriptor.count) + " " +
         dtype_name(descriptor.dtype);
}

// "peer 3 and peer 4"
std::string peer_names(const std::vector<PeerId>& peers) {
  std::string names;
  for (const PeerId peer : peers) names += (names.empty() ? "peer " : " and peer ") + std::to_string(peer);
  return names;
}

}  // namespace

EpochOps::EpochOps(const View& view, const Context& context, Events events)
    : view_(view),
      loop_(context.loop),
      mesh_(context.mesh),
      pool_(context.pool),
      events_(std::move(events)),
      ranks_(static_cast<std::uint32_t>(view.ring.size())),
      rounds_(dissemination_rounds(ranks_)) {
  while (view_.ring[rank_].id != view_.self) ++rank_;
  for (const std::uint32_t rank : linked_ranks(rank_, ranks_)) linked_.push_back(view_.ring[rank].id);
}

void EpochOps::set_world(Epoch view_epoch, std::uint32_t world_size) {
  view_.view_epoch = view_epoch;
  view_.world_size = world_size;
}

bool EpochOps::settled(OpKey key) const {
  const auto seq = next_seq_.find(key.tag);
  return seq != next_seq_.end() && key.seq < seq->second && !records_.contains(key);
}

EpochOps::Record* EpochOps::record_for(Link& link, OpKey key) {
  if (settled(key)) return nullptr;
  const auto found = records_.find(key);
  if (found != records_.end()) return &found->second;
  if (early_records_ >= limits::early_ops_max) {
    link.fail("the peer is too many ops ahead");
    return nullptr;
  }
  ++early_records_;
  return &records_[key];
}

std::optional<OpKey> EpochOps::new_key(std::uint64_t tag) {
  if (!next_seq_.contains(tag) && next_seq_.size() >= limits::tags_per_epoch_max) return std::nullopt;
  std::uint32_t& next = next_seq_[tag];
  // Aborted because a peer waited in another call, and that call has failed too: whoever comes later makes the next
  // call of all. Peers that each passed over other numbers would wait for each other.
  for (auto found = records_.find({tag, next}); found != records_.end(); found = records_.find({tag, next})) {
    const std::optional<AbortReason>& abort = found->second.abort;
    if (!abort || abort->code != ErrorCode::call_mismatch) break;
    records_.erase(found);
    --early_records_;
    ++next;
  }
  return OpKey{tag, next++};
}

void EpochOps::post(const AllReduceOp::Request& request) {
  PCCL_CHECK(!frozen_);
  auto op = std::make_unique<AllReduceOp>(request, rank_, ranks_, pool_);
  const auto key = new_key(request.call.tag);
  if (!key) {
    const std::string message = "all_reduce: this epoch has seen " + std::to_string(limits::tags_per_epoch_max) +
                                " different tags; use tags again, they only tell concurrent ops apart";
    const OpResult result = op->result(Error{ErrorCode::too_many_ops, message, {}, view_.view_epoch});
    return events_.settled(request.id, result);
  }
  const auto [at, is_new] = records_.try_emplace(*key);
  if (!is_new) --early_records_;
  Record& record = at->second;
  const bool prepared = op->prepare();
  record.op = std::move(op);
  if (record.abort) return settle(at, abort_error(*key, *record.abort), OpState::aborted);
  if (!prepared) {
    // The others can't go on without this peer, and learn it as a withdrawal.
    flood(*key, {ErrorCode::cancelled, view_.self, {}});
    const std::string message = name(*key) + ": no memory to back up the input of an op in place";
    return settle(at, Error{ErrorCode::out_of_memory, message, {}}, OpState::aborted);
  }
  if (ranks_ > 1) {
    const ReadyBody ready{record.op->descriptor()};
    send(previous(), *key, ready);
    if (next() != previous()) send(next(), *key, ready);
    if (!descriptors_agree(*key, record)) return;
    if (!missing(record).empty()) watch_for_stall(*key);
    wake(next());
  }
  advance_commit(at);
}

void EpochOps::post_cancelled(std::uint64_t tag) {
  const auto key = new_key(tag);
  if (!key) return;
  const auto found = records_.find(*key);
  const bool known = found != records_.end() && found->second.abort;
  if (found != records_.end()) {
    --early_records_;
    records_.erase(found);
  }
  if (!known) flood(*key, {ErrorCode::cancelled, view_.self, {}});
}

bool EpochOps::cancel(OpId id) {
  const auto at = std::find_if(records_.begin(), records_.end(),
                               [id](const auto& entry) { return entry.second.op && entry.second.op->id() == id; });
  if (at == records_.end() || at->second.op->done()) return false;
  const AbortReason reason{ErrorCode::cancelled, view_.self, {}};
  Error error = abort_error(at->first, reason);
  const std::vector<PeerId> absent = missing(at->second);
  if (!absent.empty()) error.message += "; not called yet by " + peer_names(absent);
  if (!frozen_) flood(at->first, reason);
  settle(at, std::move(error), OpState::aborted);
  return true;
}

bool EpochOps::abort_if_missing(OpKey key, PeerId peer) {
  const auto at = records_.find(key);
  // What the neighbour has sent may overtake its word that it has called, so this peer may be done.
  if (at == records_.end() || !at->second.op || at->second.op->done()) return false;
  const std::vector<PeerId> absent = missing(at->second);
  if (std::find(absent.begin(), absent.end(), peer) == absent.end()) return false;
  abort(at, {ErrorCode::call_mismatch, peer, {}});
  return true;
}

std::vector<PeerId> EpochOps::missing(const Record& record) const {
  std::vector<PeerId> peers;
  if (ranks_ > 1 && !record.previous) peers.push_back(previous());
  if (ranks_ > 2 && !record.next) peers.push_back(next());
  std::sort(peers.begin(), peers.end());
  return peers;
}

void EpochOps::watch_for_stall(OpKey key) {
  stall_watch_.emplace_back(EventLoop::Clock::now() + limits::stalled_after, key);
  if (stall_watch_.size() == 1) report_stalls();
}

void EpochOps::report_stalls() {
  const auto now = EventLoop::Clock::now();
  while (!stall_watch_.empty()) {
    const auto [when, key] = stall_watch_.front();
    const auto found = records_.find(key);
    const bool waits = found != records_.end() && found->second.op && !found->second.op->done();
    const std::vector<PeerId> absent = waits ? missing(found->second) : std::vector<PeerId>{};
    if (!absent.empty() && when > now) {
      stall_timer_ = EventLoop::Timer(loop_, when - now, [this] { report_stalls(); });
      return;
    }
    stall_watch_.pop_front();
    if (!absent.empty()) events_.stalled({view_.epoch, key.tag, key.seq, absent});
  }
}

void EpochOps::on_control(Link& link, const Frame& frame) {
  if (frozen_) return;
  if (std::find(linked_.begin(), linked_.end(), link.peer()) == linked_.end()) {
    return link.fail("a frame of an epoch that doesn't link the peer");
  }
  if (const auto* ready = std::get_if<ReadyBody>(&frame.body)) return on_ready(link, frame.key, *ready);
  if (const auto* done = std::get_if<DoneBody>(&frame.body)) return on_done(link, frame.key, *done);
  if (const auto* aborted = std::get_if<AbortBody>(&frame.body)) return on_abort(link, frame.key, *aborted);
}

void EpochOps::on_ready(Link& link, OpKey key, const ReadyBody& body) {
  const bool from_previous = link.peer() == previous();
  const bool from_next = link.peer() == next();
  if (!from_previous && !from_next) return link.fail("ready from a peer that is no neighbour in the ring");
  Record* const record = record_for(link, key);
  if (record == nullptr || record->abort) return;
  if ((from_previous && record->previous) || (from_next && record->next)) return link.fail("ready was sent twice");
  if (from_previous) record->previous = body.descriptor;
  if (from_next) record->next = body.descriptor;
  if (record->op && descriptors_agree(key, *record) && from_next) wake(next());
}

// False: the op was aborted, and the record is gone.
bool EpochOps::descriptors_agree(OpKey key, Record& record) {
  const Descriptor own = record.op->descriptor();
  const auto differs = [&](const std::optional<Descriptor>& other) { return other && *other != own; };
  if (!differs(record.previous) && !differs(record.next)) return true;
  const bool with_previous = differs(record.previous);
  const Mismatch mismatch{own, with_previous ? previous() : next(), with_previous ? *record.previous : *record.next};
  abort(records_.find(key), {ErrorCode::descriptor_mismatch, view_.self, mismatch});
  return false;
}

Lane::Target EpochOps::on_data(Link& link, const Frame& frame) {
  if (frozen_) return {};
  const auto found = records_.find(frame.key);
  if (found == records_.end()) {
    if (!settled(frame.key)) link.fail("data for an op that wasn't posted");
    return {};
  }
  Record& record = found->second;
  const auto& body = std::get<DataBody>(frame.body);
  const AllReduceOp::Turn turn =
      record.op && link.peer() == previous() ? record.op->turn(body) : AllReduceOp::Turn::wrong;
  if (turn == AllReduceOp::Turn::wrong) link.fail("data out of turn");
  if (turn != AllReduceOp::Turn::wanted) return {};
  using Place = Lane::Target::Place;
  std::uint8_t* const memory = record.op->receive_begin(body);
  return {memory == nullptr ? Place::scratch : Place::memory, memory, record.op->id()};
}

void EpochOps::on_data_end(Link&, const Frame& frame, const std::uint8_t* payload) {
  const auto found = records_.find(frame.key);
  // What ends an op releases it from its links first.
  PCCL_CHECK(!frozen_ && found != records_.end() && found->second.op);
  found->second.op->receive_end(std::get<DataBody>(frame.body), payload);
  wake(next());
  advance_commit(found);
}

void EpochOps::on_unsent(const ChunkId& chunk) {
  const auto found = records_.find(chunk.key);
  if (frozen_ || found == records_.end() || !found->second.op) return;
  found->second.op->send_again(chunk.body);
  wake(next());
}

std::optional<Lane::Outgoing> EpochOps::next_data(Link& link) {
  if (frozen_ || records_.empty() || link.peer() != next()) return std::nullopt;
  // Once around, beginning behind the op that had the last turn.
  const auto begin = records_.upper_bound(last_sent_);
  auto at = begin;
  do {
    if (at == records_.end()) {
      at = records_.begin();
      if (at == begin) break;
    }
    Record& record = at->second;
    if (record.op && record.next) {
      if (const auto chunk = record.op->next_send()) {
        last_sent_ = at->first;
        return Lane::Outgoing{{view_.epoch, at->first, chunk->body}, chunk->payload, record.op->id()};
      }
    }
    ++at;
  } while (at != begin);
  return std::nullopt;
}

void EpochOps::on_done(Link& link, OpKey key, const DoneBody& body) {
  if (body.round >= rounds_ || link.peer() != at_distance(ranks_ - (1u << body.round))) {
    return link.fail("done from a peer whose turn it isn't");
  }
  Record* const record = record_for(link, key);
  if (record == nullptr || record->abort) return;
  record->heard |= 1u << body.round;
  if (record->op) advance_commit(records_.find(key));
}

void EpochOps::advance_commit(Records::iterator at) {
  Record& record = at->second;
  if (!record.op->done()) return;
  while (record.rounds_sent < rounds_) {
    const std::uint32_t round = record.rounds_sent;
    if (round > 0 && (record.heard & (1u << (round - 1))) == 0) return;
    send(at_distance(1u << round), at->first, DoneBody{round});
    ++record.rounds_sent;
  }
  const bool heard_all = rounds_ == 0 || (record.heard & (1u << (rounds_ - 1))) != 0;
  if (heard_all) settle(at, std::nullopt, OpState::committed);
}

void EpochOps::on_abort(Link& link, OpKey key, const AbortBody& body) {
  Record* const record = record_for(link, key);
  if (record == nullptr || record->abort) return;
  if (record->op) return abort(records_.find(key), body.reason);
  record->abort = body.reason;
  flood(key, body.reason);
}

void EpochOps::abort(Records::iterator at, const AbortReason& reason) {
  if (!frozen_) flood(at->first, reason);
  settle(at, abort_error(at->first, reason), OpState::aborted);
}

// Each member forwards an abort once, when it first hears of it; the links connect all of them.
void EpochOps::flood(OpKey key, const AbortReason& reason) {
  for (const PeerId peer : linked_) send(peer, key, AbortBody{reason});
}

void EpochOps::settle(Records::iterator at, std::optional<Error> error, OpState state) {
  const OpKey key = at->first;
  const std::unique_ptr<AllReduceOp> op = std::move(at->second.op);
  records_.erase(at);
  for (const PeerId peer : {previous(), next()}) {
    if (Link* const link = mesh_.find(peer)) link->release(op->id());
  }
  if (error) op->restore();
  settled_.push_back({key.tag, key.seq, state});
  if (settled_.size() > limits::settled_reports_max) settled_.pop_front();
  if (error) error->epoch = view_.view_epoch;
  OpResult result = op->result(std::move(error));
  result.epoch = view_.view_epoch;
  events_.settled(op->id(), result);
}

void EpochOps::freeze() {
  frozen_ = true;
  stall_watch_.clear();
  stall_timer_.reset();
  for (auto at = records_.begin(); at != records_.end();) {
    if (!at->second.op) {
      at = records_.erase(at);
      continue;
    }
    for (const PeerId peer : {previous(), next()}) {
      if (Link* const link = mesh_.find(peer)) link->release(at->second.op->id());
    }
    ++at;
  }
  early_records_ = 0;
}

std::vector<OpReport> EpochOps::reports() const {
  PCCL_CHECK(frozen_);
  std::vector<OpReport> reports(settled_.begin(), settled_.end());
  for (const auto& [key, record] : records_) {
    reports.push_back({key.tag, key.seq, record.op->done() ? OpState::done : OpState::not_done});
  }
  return reports;
}

void EpochOps::resolve(const std::vector<Verdict>& verdicts, const Error& why) {
  PCCL_CHECK(frozen_);
  while (!records_.empty()) {
    const auto at = records_.begin();
    const OpKey key = at->first;
    const bool commit = std::any_of(verdicts.begin(), verdicts.end(), [key](const Verdict& verdict) {
      return verdict.commit && verdict.tag == key.tag && verdict.seq == key.seq;
    });
    if (commit && at->second.op->done()) {
      settle(at, std::nullopt, OpState::committed);
    } else if (commit) {
      const std::string message = name(key) + ": the verdict is commit, but this peer reported that it isn't done";
      settle(at, Error{ErrorCode::internal, message, {}}, OpState::aborted);
    } else {
      settle(at, Error{why.code, name(key) + ": " + why.message, why.peer}, OpState::aborted);
    }
  }
}

void EpochOps::fail_all(const Error& why) {
  if (!frozen_) freeze();
  resolve({}, why);
}

void EpochOps::send(PeerId to, OpKey key, const decltype(Frame::body)& body) {
  // Without the link the op stays where it is until the next view.
  if (Link* const link = mesh_.find(to)) link->send({view_.epoch, key, body});
}

void EpochOps::wake(PeerId peer) {
  if (Link* const link = mesh_.find(peer)) link->wake();
}

std::string EpochOps::name(OpKey key) const {
  return "all_reduce with tag " + std::to_string(key.tag) + " (number " + std::to_string(key.seq) + " in epoch " +
         std::to_string(view_.view_epoch) + ")";
}

Error EpochOps::abort_error(OpKey key, const AbortReason& reason) const {
  const std::string origin = "peer " + std::to_string(reason.origin);
  if (reason.code == ErrorCode::call_mismatch) {
    return {reason.code, name(key) + ": " + origin + " waits in another call", reason.origin};
  }
  if (!reason.mismatch) {
    return {ErrorCode::cancelled, name(key) + ": " + origin + " withdrew it before it was done", reason.origin};
  }
  const Mismatch& mismatch = *reason.mismatch;
  return {ErrorCode::descriptor_mismatch,
          name(key) + ": " + origin + " called " + describe(mismatch.own) + ", peer " + std::to_string(mismatch.other) +
              " called " + describe(mismatch.others),
          reason.origin};
}

}  // namespace pccl
