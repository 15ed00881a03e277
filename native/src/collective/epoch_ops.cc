#include "collective/epoch_ops.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/collectives.h"
#include "base/limits.h"
#include "collective/make_op.h"
#include "collective/op_errors.h"
#include "transport/ring_links.h"

namespace pccl {
namespace {

OpKey with_seq(OpKey key, std::uint32_t seq) {
  key.seq = seq;
  return key;
}

std::size_t payload_bytes(const ReadyBody& body) { return body.payload ? body.payload->size() : 0; }

template <typename Values, typename T>
bool contains(const Values& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

EpochOps::EpochOps(const View& view, const Context& context, Events events)
    : view_(view),
      loop_(context.loop),
      mesh_(context.mesh),
      pool_(context.pool),
      events_(std::move(events)),
      ranks_(static_cast<std::uint32_t>(view.ring.size())),
      rounds_(dissemination_rounds(ranks_)),
      hosts_(view) {
  while (view_.ring[rank_].id != view_.self) ++rank_;
  for (const std::uint32_t rank : linked_ranks(rank_, ranks_)) linked_.emplace(id_of(rank), rank);
}

void EpochOps::set_world(Epoch view_epoch, std::uint32_t world_size) {
  view_.view_epoch = view_epoch;
  view_.world_size = world_size;
}

std::vector<PeerId> EpochOps::ids_of(const std::vector<std::uint32_t>& ranks) const {
  std::vector<PeerId> ids;
  for (const std::uint32_t rank : ranks) ids.push_back(id_of(rank));
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::optional<std::uint32_t> EpochOps::linked_rank(PeerId peer) const {
  const auto found = linked_.find(peer);
  return found == linked_.end() ? std::nullopt : std::optional(found->second);
}

bool EpochOps::Record::has_called(std::uint32_t rank) const {
  return std::any_of(ready.begin(), ready.end(), [rank](const Ready& word) { return word.rank == rank; });
}

bool EpochOps::settled(const OpKey& key) const {
  const auto next = next_seq_.find(with_seq(key, 0));
  return next != next_seq_.end() && key.seq < next->second && !records_.contains(key);
}

EpochOps::Record* EpochOps::record_for(Link& link, const OpKey& key) {
  if (settled(key)) return nullptr;
  const auto found = records_.find(key);
  if (found != records_.end()) return &found->second;
  if (early_records_ >= limits::early_ops_max) {
    link.fail("the peer is too many ops ahead");
    return nullptr;
  }
  ++early_records_;
  return &enter(key);
}

void EpochOps::forget_early(Records::iterator at) {
  for (const Ready& word : at->second.ready) early_payload_bytes_ -= payload_bytes(word.body);
  --early_records_;
  records_.erase(at);
}

OpKey EpochOps::key_of(const CollectiveCall& call) const {
  if (call.kind == Collective::send) return {call.tag, 0, view_.self, call.peer};
  if (call.kind == Collective::recv) return {call.tag, 0, call.peer, view_.self};
  return {call.tag, 0};
}

std::optional<OpKey> EpochOps::new_key(const CollectiveCall& call) {
  const OpKey first = key_of(call);
  if (!next_seq_.contains(first) && next_seq_.size() >= limits::tags_per_epoch_max) return std::nullopt;
  std::uint32_t& next = next_seq_[first];
  // Aborted because a peer waited in another call, and that call has failed too: whoever comes later makes the next
  // call of all. Peers that each passed over other numbers would wait for each other.
  for (auto at = records_.find(with_seq(first, next)); at != records_.end(); at = records_.find(with_seq(first, next))) {
    const std::optional<AbortReason>& abort = at->second.abort;
    if (!abort || abort->code != ErrorCode::call_mismatch) break;
    forget_early(at);
    ++next;
  }
  return with_seq(first, next++);
}

// Why this epoch can't carry the call out. It was checked, but perhaps by another view.
std::optional<Error> EpochOps::refusal(const CollectiveCall& call) const {
  const CollectiveTraits& kind = traits(call.kind);
  if (call.quantization.format != QuantizedFormat::none && ranks_ > limits::fully_linked_max) {
    const std::string message = op_name(call) + ": it is quantized, and the group has more than " +
                                std::to_string(limits::fully_linked_max) + " members, which aren't all linked";
    return Error{ErrorCode::invalid_argument, message, {}};
  }
  if (!kind.of_two && !kind.has_root) return std::nullopt;
  const bool member =
      std::any_of(view_.ring.begin(), view_.ring.end(), [&](const Member& other) { return other.id == call.peer; });
  const std::string peer = "peer " + std::to_string(call.peer);
  if (!member) return Error{ErrorCode::peer_lost, op_name(call) + ": the group has lost " + peer, call.peer};
  if (!kind.of_two || linked_rank(call.peer)) return std::nullopt;
  const std::string message = op_name(call) + ": in a group of more than " + std::to_string(limits::fully_linked_max) +
                              " not all members are linked, and this peer has no link with " + peer;
  return Error{ErrorCode::invalid_argument, message, call.peer};
}

Op::Seat EpochOps::seat_for(const CollectiveCall& call) const {
  Op::Seat seat{.rank = rank_, .ranks = ranks_, .fully_linked = ranks_ <= limits::fully_linked_max, .peer_rank = 0};
  const CollectiveTraits& kind = traits(call.kind);
  if (!kind.of_two && !kind.has_root) return seat;
  while (id_of(seat.peer_rank) != call.peer) ++seat.peer_rank;
  return seat;
}

void EpochOps::post(const Op::Request& request) {
  PCCL_CHECK(!frozen_);
  std::optional<Error> refused = refusal(request.call);
  const auto key = refused ? std::nullopt : new_key(request.call);
  if (!key) {
    if (!refused) {
      const std::string message = op_name(request.call) + ": this epoch has seen " +
                                  std::to_string(limits::tags_per_epoch_max) +
                                  " different tags; use tags again, they only tell concurrent ops apart";
      refused = Error{ErrorCode::too_many_ops, message, {}};
    }
    refused->epoch = view_.view_epoch;
    return events_.settled(request.id, {.error = std::move(refused)});
  }
  if (records_.contains(*key)) --early_records_;
  Record& record = enter(*key);
  for (const Ready& word : record.ready) early_payload_bytes_ -= payload_bytes(word.body);
  record.op = make_op(request, {seat_for(request.call), record, pool_, hosts_});
  record.missing = record.op->partners();
  if (record.abort) return settle(record, abort_error(name(record), *record.abort), OpState::aborted);
  if (!record.op->prepare()) {
    // The others can't go on without this peer, and learn it as a withdrawal.
    flood(*key, {ErrorCode::cancelled, view_.self, {}});
    const std::string message = name(record) + ": no memory to back up the input of an op in place";
    return settle(record, Error{ErrorCode::out_of_memory, message, {}}, OpState::aborted);
  }
  for (const std::uint32_t rank : record.op->partners()) {
    send(id_of(rank), *key, ReadyBody{record.op->descriptor(), record.op->ready_payload(rank)});
  }
  for (Ready& word : record.ready) {
    if (!take_ready(record, word)) return;
  }
  if (!record.missing.empty()) watch_for_stall(*key);
  advance_commit(record);
}

void EpochOps::post_cancelled(const CollectiveCall& call) {
  const auto key = refusal(call) ? std::nullopt : new_key(call);
  if (!key) return;
  const auto found = records_.find(*key);
  const bool known = found != records_.end() && found->second.abort;
  if (found != records_.end()) forget_early(found);
  if (!known) flood(*key, {ErrorCode::cancelled, view_.self, {}});
}

bool EpochOps::cancel(OpId id) {
  const auto at = std::find_if(records_.begin(), records_.end(),
                               [id](const auto& entry) { return entry.second.op && entry.second.op->id() == id; });
  if (at == records_.end() || at->second.done()) return false;
  Record& record = at->second;
  const AbortReason reason{ErrorCode::cancelled, view_.self, {}};
  Error error = abort_error(name(record), reason);
  if (!record.missing.empty()) error.message += "; not called yet by " + peer_names(ids_of(record.missing));
  if (!frozen_) flood(record.key, reason);
  settle(record, std::move(error), OpState::aborted);
  return true;
}

bool EpochOps::abort_if_missing(const OpKey& key, PeerId peer) {
  const auto at = records_.find(key);
  if (at == records_.end() || !at->second.op || !contains(ids_of(at->second.missing), peer)) return false;
  abort(at->second, {ErrorCode::call_mismatch, peer, {}});
  return true;
}

void EpochOps::schedule(const OpKey& key) {
  if (contains(scheduled_, key)) return;
  scheduled_.push_back(key);
  if (scheduled_.size() == 1) work_ = EventLoop::Timer(loop_, {}, [this] { do_work(); });
}

// One piece of one op, so that what comes from outside has its turn in between.
void EpochOps::do_work() {
  const OpKey key = scheduled_.front();
  scheduled_.pop_front();
  if (!scheduled_.empty()) work_ = EventLoop::Timer(loop_, {}, [this] { do_work(); });
  const auto found = records_.find(key);
  if (found == records_.end() || !found->second.op) return;
  Record& record = found->second;
  std::optional<Error> error = record.op->work();
  if (!error) return advance_commit(record);
  const bool is_told = error->code == ErrorCode::peer_lost || error->code == ErrorCode::non_finite_input;
  flood(key, {is_told ? error->code : ErrorCode::cancelled, view_.self, {}});
  if (error->code == ErrorCode::non_finite_input) error->peer = view_.self;
  error->message = name(record) + ": " + error->message;
  settle(record, std::move(error), OpState::aborted);
}

void EpochOps::watch_for_stall(const OpKey& key) {
  stall_watch_.emplace_back(EventLoop::Clock::now() + limits::stalled_after, key);
  if (stall_watch_.size() == 1) report_stalls();
}

void EpochOps::report_stalls() {
  const auto now = EventLoop::Clock::now();
  while (!stall_watch_.empty()) {
    const auto [when, key] = stall_watch_.front();
    const auto found = records_.find(key);
    const bool waits = found != records_.end() && !found->second.missing.empty();
    if (waits && when > now) {
      stall_timer_ = EventLoop::Timer(loop_, when - now, [this] { report_stalls(); });
      return;
    }
    stall_watch_.pop_front();
    if (waits) events_.stalled({view_.epoch, key, ids_of(found->second.missing)});
  }
}

void EpochOps::on_control(Link& link, const Frame& frame) {
  if (frozen_) return;
  const auto rank = linked_rank(link.peer());
  if (!rank) return link.fail("a frame of an epoch that doesn't link the peer");
  const OpKey& key = frame.key;
  const bool of_us =
      (key.from == view_.self && key.to == link.peer()) || (key.to == view_.self && key.from == link.peer());
  if (key.of_two() && !of_us) return link.fail("a frame of an op of two others");
  if (const auto* ready = std::get_if<ReadyBody>(&frame.body)) return on_ready(link, *rank, key, *ready);
  if (const auto* step = std::get_if<StepBody>(&frame.body)) return on_step(link, *rank, key, *step);
  if (const auto* done = std::get_if<DoneBody>(&frame.body)) return on_done(link, *rank, key, *done);
  if (const auto* aborted = std::get_if<AbortBody>(&frame.body)) return on_abort(link, key, *aborted);
}

void EpochOps::on_ready(Link& link, std::uint32_t rank, const OpKey& key, const ReadyBody& body) {
  Record* const record = record_for(link, key);
  if (record == nullptr || record->abort) return;
  if (record->has_called(rank)) return link.fail("ready was sent twice");
  record->ready.push_back({rank, body});
  if (record->op) {
    if (take_ready(*record, record->ready.back())) advance_commit(*record);
    return;
  }
  early_payload_bytes_ += payload_bytes(body);
  if (early_payload_bytes_ > limits::early_payload_bytes_max) link.fail("the peers are too many bytes ahead");
}

bool EpochOps::take_ready(Record& record, Ready& ready) {
  const PeerId peer = id_of(ready.rank);
  Op::Difference difference{record.op->descriptor(), ready.body.descriptor};
  bool differs = difference.first != difference.second;
  // One that is done has its partners' agreement: whoever it differs from differs from one of those as well.
  if (differs && record.done()) return true;
  const auto partner = std::find(record.missing.begin(), record.missing.end(), ready.rank);
  if (!differs && partner == record.missing.end()) return true;
  if (!differs) {
    const Op::Answer answer = record.op->on_ready(ready.rank, std::exchange(ready.body.payload, nullptr), difference);
    if (answer == Op::Answer::wrong) {
      if (Link* const link = mesh_.find(peer)) link->fail("a ready that doesn't fit its op");
      return true;
    }
    differs = answer == Op::Answer::differs;
  }
  if (differs) {
    abort(record, {ErrorCode::descriptor_mismatch, view_.self, Mismatch{difference.first, peer, difference.second}});
    return false;
  }
  record.missing.erase(partner);
  wake(ready.rank);
  return true;
}

void EpochOps::on_step(Link& link, std::uint32_t rank, const OpKey& key, const StepBody& body) {
  const auto found = records_.find(key);
  if (found == records_.end() || !found->second.op) {
    if (!settled(key)) link.fail("a step of an op that wasn't posted");
    return;
  }
  if (!found->second.op->on_step(rank, body)) return link.fail("a step out of turn");
  advance_commit(found->second);
}

Lane::Target EpochOps::on_data(Link& link, const Frame& frame) {
  if (frozen_) return {};
  const auto found = records_.find(frame.key);
  if (found == records_.end()) {
    if (!settled(frame.key)) link.fail("data for an op that wasn't posted");
    return {};
  }
  Op* const op = found->second.op.get();
  const auto& body = std::get<DataBody>(frame.body);
  const auto rank = linked_rank(link.peer());
  const Op::Turn turn = op != nullptr && rank ? op->turn(*rank, body) : Op::Turn::wrong;
  if (turn == Op::Turn::wrong) link.fail("data out of turn");
  if (turn != Op::Turn::wanted) return {};
  using Place = Lane::Target::Place;
  std::uint8_t* const memory = op->receive_begin(*rank, body);
  return {memory == nullptr ? Place::scratch : Place::memory, memory, op->id()};
}

void EpochOps::on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload) {
  const auto found = records_.find(frame.key);
  // What ends an op releases it from its links first.
  PCCL_CHECK(!frozen_ && found != records_.end() && found->second.op);
  found->second.op->receive_end(linked_.at(link.peer()), std::get<DataBody>(frame.body), payload);
  advance_commit(found->second);
}

void EpochOps::on_unsent(Link& link, const ChunkId& chunk) {
  const auto found = records_.find(chunk.key);
  if (frozen_ || found == records_.end() || !found->second.op) return;
  found->second.op->send_again(linked_.at(link.peer()), chunk.body);
}

std::optional<Lane::Outgoing> EpochOps::next_data(Link& link) {
  if (frozen_ || records_.empty()) return std::nullopt;
  const auto rank = linked_rank(link.peer());
  if (!rank) return std::nullopt;
  // Once around, beginning behind the op that had the last turn.
  OpKey& last = last_sent_[link.peer()];
  const auto begin = records_.upper_bound(last);
  auto at = begin;
  do {
    if (at == records_.end()) {
      at = records_.begin();
      if (at == begin) break;
    }
    Record& record = at->second;
    if (record.op && record.has_called(*rank)) {
      if (const auto chunk = record.op->next_send(*rank)) {
        last = at->first;
        return Lane::Outgoing{{view_.epoch, at->first, chunk->body}, chunk->payload, record.op->id()};
      }
    }
    ++at;
  } while (at != begin);
  return std::nullopt;
}

void EpochOps::on_done(Link& link, std::uint32_t rank, const OpKey& key, const DoneBody& body) {
  const bool to_all = body.round == DoneBody::to_all;
  const bool in_turn =
      !key.of_two() && body.round < rounds_ && link.peer() == at_distance(ranks_ - (1u << body.round));
  if (!to_all && !in_turn) return link.fail("done from a peer whose turn it isn't");
  Record* const record = record_for(link, key);
  if (record == nullptr || record->abort) return;
  if (!to_all) {
    record->heard_rounds |= 1u << body.round;
  } else if (!contains(record->heard_from, rank)) {
    record->heard_from.push_back(rank);
  }
  if (record->op) advance_commit(*record);
}

// Settles the op, and the record is gone, when all are known to be done.
void EpochOps::advance_commit(Record& record) {
  if (!record.done()) return;
  bool heard_all = false;
  if (record.op->words_to_all()) {
    const std::vector<std::uint32_t>& others = record.op->partners();
    if (std::exchange(record.rounds_sent, 1) == 0) {
      for (const std::uint32_t rank : others) send(id_of(rank), record.key, DoneBody{DoneBody::to_all});
    }
    heard_all = std::all_of(others.begin(), others.end(),
                            [&](std::uint32_t rank) { return contains(record.heard_from, rank); });
  } else {
    while (record.rounds_sent < rounds_) {
      const std::uint32_t round = record.rounds_sent;
      if (round > 0 && (record.heard_rounds & (1u << (round - 1))) == 0) return;
      send(at_distance(1u << round), record.key, DoneBody{round});
      ++record.rounds_sent;
    }
    heard_all = rounds_ == 0 || (record.heard_rounds & (1u << (rounds_ - 1))) != 0;
  }
  if (heard_all) settle(record, std::nullopt, OpState::committed);
}

void EpochOps::on_abort(Link& link, const OpKey& key, const AbortBody& body) {
  Record* const record = record_for(link, key);
  if (record == nullptr || record->abort) return;
  if (record->op) return abort(*record, body.reason);
  record->abort = body.reason;
  for (Ready& word : record->ready) {
    early_payload_bytes_ -= payload_bytes(word.body);
    word.body.payload = nullptr;
  }
  flood(key, body.reason);
}

void EpochOps::abort(Record& record, const AbortReason& reason) {
  if (!frozen_) flood(record.key, reason);
  settle(record, abort_error(name(record), reason), OpState::aborted);
}

// Each member forwards an abort once, when it first hears of it; the links connect all of them.
void EpochOps::flood(const OpKey& key, const AbortReason& reason) {
  if (key.of_two()) return send(key.from == view_.self ? key.to : key.from, key, AbortBody{reason});
  for (const auto& [peer, rank] : linked_) send(peer, key, AbortBody{reason});
}

void EpochOps::settle(Record& record, std::optional<Error> error, OpState state) {
  const OpKey key = record.key;
  const std::unique_ptr<Op> op = std::move(record.op);
  release(*op);
  if (error) op->restore();
  settled_.push_back({key, state});
  if (settled_.size() > limits::settled_reports_max) settled_.pop_front();
  if (error) error->epoch = view_.view_epoch;
  OpResult result = op->result(std::move(error));
  result.epoch = view_.view_epoch;
  result.transport = transport_of(*op);
  records_.erase(key);
  events_.settled(op->id(), result);
}

void EpochOps::release(const Op& op) {
  for (const std::uint32_t rank : op.partners()) {
    if (Link* const link = mesh_.find(id_of(rank))) link->release(op.id());
  }
}

Transport EpochOps::transport_of(const Op& op) const {
  bool tcp = false;
  bool shm = false;
  for (const std::uint32_t rank : op.partners()) {
    if (const Link* const link = mesh_.find(id_of(rank))) (link->path() == Path::shm ? shm : tcp) = true;
  }
  if (tcp && shm) return Transport::mixed;
  if (shm) return Transport::shm;
  return tcp ? Transport::tcp : Transport::none;
}

void EpochOps::freeze() {
  frozen_ = true;
  stall_watch_.clear();
  stall_timer_.reset();
  scheduled_.clear();
  work_.reset();
  std::erase_if(records_, [](const auto& entry) { return !entry.second.op; });
  for (auto& [key, record] : records_) {
    release(*record.op);
    record.later.reset();
  }
  early_records_ = 0;
  early_payload_bytes_ = 0;
}

std::vector<OpReport> EpochOps::reports() const {
  PCCL_CHECK(frozen_);
  std::vector<OpReport> reports(settled_.begin(), settled_.end());
  for (const auto& [key, record] : records_) {
    reports.push_back({key, record.done() ? OpState::done : OpState::not_done});
  }
  return reports;
}

void EpochOps::resolve(const std::vector<Verdict>& verdicts, const Error& why) {
  PCCL_CHECK(frozen_);
  while (!records_.empty()) {
    Record& record = records_.begin()->second;
    const bool commit = std::any_of(verdicts.begin(), verdicts.end(), [&](const Verdict& verdict) {
      return verdict.commit && verdict.key == record.key;
    });
    if (commit && record.done()) {
      settle(record, std::nullopt, OpState::committed);
    } else if (commit) {
      const std::string message = name(record) + ": the verdict is commit, but this peer reported that it isn't done";
      settle(record, Error{ErrorCode::internal, message, {}}, OpState::aborted);
    } else {
      settle(record, Error{why.code, name(record) + ": " + why.message, why.peer}, OpState::aborted);
    }
  }
}

void EpochOps::fail_all(const Error& why) {
  if (!frozen_) freeze();
  resolve({}, why);
}

void EpochOps::send(PeerId to, const OpKey& key, const decltype(Frame::body)& body) {
  // Without the link the op stays where it is until the next view.
  if (Link* const link = mesh_.find(to)) link->send({view_.epoch, key, body});
}

void EpochOps::wake(std::uint32_t rank) {
  if (Link* const link = mesh_.find(id_of(rank))) link->wake();
}

std::string EpochOps::name(const Record& record) const {
  return op_name(record.op->call(), record.key, view_.view_epoch);
}

}  // namespace pccl
