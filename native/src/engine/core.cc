#include "engine/core.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/collectives.h"
#include "base/limits.h"
#include "base/parallel_for.h"
#include "collective/op_errors.h"

namespace pccl {
namespace {

bool has_member(const View& view, PeerId id) {
  return std::any_of(view.ring.begin(), view.ring.end(), [id](const Member& member) { return member.id == id; });
}

// Compares all bytes, so that the time taken tells a stranger nothing.
bool same_key(const std::array<std::uint8_t, 16>& a, const std::array<std::uint8_t, 16>& b) {
  std::uint8_t difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference = static_cast<std::uint8_t>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

InstalledView installed_view(const View& view) {
  std::uint32_t rank = 0;
  while (view.ring[rank].id != view.self) ++rank;
  InstalledView installed{.epoch = view.view_epoch,
                          .ring_epoch = view.epoch,
                          .self = view.self,
                          .rank = rank,
                          .group_size = static_cast<std::uint32_t>(view.ring.size()),
                          .world_size = view.world_size};
  for (const Member& member : view.ring) installed.members.push_back(member.id);
  return installed;
}

// Why the ops of `from` that `to` doesn't commit are aborted.
Error change_between(const View& from, const View& to) {
  std::string lost;
  std::optional<PeerId> first;
  for (const Member& member : from.ring) {
    if (has_member(to, member.id)) continue;
    lost += (first ? ", " : "") + std::to_string(member.id);
    if (!first) first = member.id;
  }
  const std::string after = "; call it again in epoch " + std::to_string(to.view_epoch);
  if (!first) return {ErrorCode::peer_lost, "aborted because a link was lost or the ring was changed" + after, {}};
  return {ErrorCode::peer_lost, "aborted because the group lost peer " + lost + after, first};
}

}  // namespace

Core::Core(EventLoop& loop, UniqueFd listener, UniqueFd local_listener, const EngineOptions& options, Events events)
    : loop_(loop),
      events_(std::move(events)),
      resolver_(loop),
      workers_(std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, limits::hashing_threads_max)),
      mesh_({loop, resolver_, scratch_, *this}, options),
      relays_(loop, resolver_, options.congestion_control),
      exports_(loop, workers_, [this](OpId id, const OpResult& result) { events_.finished(id, result); }),
      server_(loop, exports_),
      probe_connections_(options.connections_per_peer == 0 ? limits::probe_connections
                                                           : options.connections_per_peer),
      congestion_control_(options.congestion_control),
      probe_server_(loop),
      acceptor_(loop, *this, std::move(listener), Path::tcp) {
  if (!local_listener) return;
  Acceptor::Owner& owner = *this;
  local_acceptor_.emplace(loop, owner, std::move(local_listener), Path::shm);
}

void Core::start(const Op::Request& request) {
  if (open()) return post(request);
  if (waiting_.size() < limits::waiting_ops_max) return waiting_.push_back({request});
  const std::string message = op_name(request.call) + ": " + std::to_string(limits::waiting_ops_max) +
                              " ops were called and withdrawn while the group waits for its next view";
  events_.finished(request.id, {.error = Error{ErrorCode::too_many_ops, message, {}}});
}

void Core::post(const Op::Request& request) {
  const View& view = epoch_->view();
  if (!traits(request.call.kind).bound_to_view || request.ring_epoch == view.epoch) return epoch_->post(request);
  const std::string message = op_name(request.call) + ": the view changed to epoch " +
                              std::to_string(view.view_epoch) + " before it began, and with it the ranks; call it again";
  events_.finished(request.id, {.error = Error{ErrorCode::peer_lost, message, {}, view.view_epoch}});
}

bool Core::cancel(OpId id) {
  for (Waiting& waiting : waiting_) {
    if (waiting.request.id != id || waiting.cancelled) continue;
    waiting.cancelled = true;
    const std::string message = op_name(waiting.request.call) + ": withdrawn before the next view was installed";
    events_.finished(id, {.error = Error{ErrorCode::cancelled, message, {}}});
    return true;
  }
  return epoch_ && epoch_->cancel(id);
}

std::variant<std::vector<OpReport>, Error> Core::prepare(const View& view, std::chrono::milliseconds timeout) {
  const std::string name = "prepare epoch " + std::to_string(view.epoch) + ": ";
  if (epoch_ && view.epoch <= epoch_->view().epoch) {
    return Error{
        ErrorCode::invalid_argument, name + "epoch " + std::to_string(epoch_->view().epoch) + " is installed", {}};
  }
  if (epoch_ && view.self != epoch_->view().self) {
    return Error{ErrorCode::invalid_argument, name + "this peer's id can't change", {}};
  }
  if (epoch_ && !epoch_->frozen()) epoch_->freeze();
  const bool again = prepared_ && prepared_->view.epoch == view.epoch;
  if (!again) prepared_.emplace();
  prepared_->view = view;
  mesh_.build(view, timeout, [this, epoch = view.epoch](const std::vector<LinkFailure>& failures) {
    events_.prepared(epoch, failures);
  });
  acceptor_.judge_waiting();
  if (local_acceptor_) local_acceptor_->judge_waiting();
  return epoch_ ? epoch_->reports() : std::vector<OpReport>{};
}

std::optional<Error> Core::install(Epoch epoch, const std::vector<Verdict>& verdicts) {
  if (!prepared_ || prepared_->view.epoch != epoch) {
    return Error{
        ErrorCode::invalid_argument, "install: epoch " + std::to_string(epoch) + " isn't the prepared one", {}};
  }
  Prepared prepared = *std::exchange(prepared_, std::nullopt);
  const View& view = prepared.view;
  // Known before the ops of the old epoch end: who calls one again finds the new view.
  events_.installed(installed_view(view));
  if (epoch_) epoch_->resolve(verdicts, change_between(epoch_->view(), view));
  open_epoch(std::move(prepared));
  return std::nullopt;
}

std::optional<Error> Core::set_world(Epoch view_epoch, std::uint32_t world_size) {
  const std::string name = "set_world: ";
  if (!epoch_) return Error{ErrorCode::invalid_argument, name + "no view has been installed yet", {}};
  const Epoch current = epoch_->view().view_epoch;
  if (view_epoch < current) {
    const std::string what = std::to_string(view_epoch) + " is older than epoch " + std::to_string(current);
    return Error{ErrorCode::invalid_argument, name + what, {}};
  }
  epoch_->set_world(view_epoch, world_size);
  events_.installed(installed_view(epoch_->view()));
  return std::nullopt;
}

bool Core::abort_if_missing(Epoch epoch, const OpKey& key, PeerId peer) {
  return open() && epoch_->view().epoch == epoch && epoch_->abort_if_missing(key, peer);
}

void Core::open_epoch(Prepared prepared) {
  const Epoch epoch = prepared.view.epoch;
  epoch_ = std::make_unique<EpochOps>(prepared.view, EpochOps::Context{loop_, mesh_, pool_},
                                      EpochOps::Events{events_.finished, events_.stalled});
  mesh_.settle();
  relays_.keep(prepared.view.relays);
  for (const auto& [peer, frame] : prepared.early_frames) {
    if (Link* const link = mesh_.find(peer)) epoch_->on_control(*link, frame);
  }
  start_waiting();
  for (const PeerId peer : mesh_.missing()) {
    loop_.defer(
        [this, epoch, peer] { events_.link_lost(epoch, peer, "the link broke before the view was installed"); });
  }
}

void Core::start_waiting() {
  for (const Waiting& waiting : std::exchange(waiting_, {})) {
    if (waiting.cancelled) {
      epoch_->post_cancelled(waiting.request.call);
    } else {
      post(waiting.request);
    }
  }
}

std::optional<StateExports::Released> Core::release_state(OpId id) {
  server_.drop_readers_of(id);
  auto released = exports_.release(id);
  if (!released) return released;
  const auto fetching = std::find_if(fetches_.begin(), fetches_.end(),
                                     [id](const auto& fetch) { return fetch.second->export_id() == id; });
  if (fetching != fetches_.end()) {
    fetching->second->cancel({ErrorCode::cancelled, "fetch_state: the export was released", {}});
  } else if (released->shadow != nullptr) {
    exports_.keep(std::move(released->shadow));
  }
  return released;
}

bool Core::is_fetching(OpId export_id) const {
  return std::any_of(fetches_.begin(), fetches_.end(),
                     [export_id](const auto& fetch) { return fetch.second->export_id() == export_id; });
}

std::optional<std::string> Core::refuse_fetch(const StateFetchCall& call) const {
  return exports_.refuse_fetch(call.export_id, call.targets);
}

void Core::fetch_state(OpId id, const StateFetchCall& call) {
  // It may have been released since it was asked for.
  if (const auto why = refuse_fetch(call)) {
    return events_.finished(id, {.error = Error{ErrorCode::cancelled, "fetch_state: " + *why, {}}});
  }
  auto shadow = exports_.begin_fetch(call.export_id, call.targets);
  if (shadow == nullptr) {
    const std::string message = "fetch_state: the system has no address space for the tensors that differ";
    return events_.finished(id, {.error = Error{ErrorCode::out_of_memory, message, {}}});
  }
  fetches_[id] = std::make_unique<StateFetch>(
      StateFetch::Context{loop_, resolver_, workers_, [this](const Member& member) { return route_to(member); }},
      std::move(shadow), call, [this, id](const OpResult& result) { fetch_ended(id, result); });
}

void Core::fetch_ended(OpId id, const OpResult& result) {
  const auto fetch = std::move(fetches_.extract(id).mapped());
  // The export was released meanwhile: what has come is for the next one.
  if (exports_.changed_tensor(fetch->export_id()) == std::nullopt) exports_.keep(fetch->shadow());
  events_.finished(id, result);
}

// As the present view has it. Members that this peer isn't linked with have no address there.
std::optional<StateRoute> Core::route_to(const Member& member) {
  const View& view = epoch_->view();
  const auto known = std::find_if(view.ring.begin(), view.ring.end(),
                                  [&](const Member& other) { return other.id == member.id; });
  if (known == view.ring.end()) return std::nullopt;
  const Member& to = known->host.empty() ? member : *known;
  const Link* const link = mesh_.find(member.id);
  return StateRoute{.hello = {ConnectionKind::state, view.epoch, view.self, member.id, view.key},
                    .host = to.host,
                    .port = to.port,
                    .congestion_control = congestion_control_,
                    .process = link == nullptr ? std::nullopt : link->readable_process()};
}

std::optional<std::string> Core::refuse_commit(OpId export_id) const {
  if (!exports_.hashes(export_id)) return std::to_string(export_id) + " is no export, or its hashing hasn't ended";
  if (is_fetching(export_id)) return "a fetch for export " + std::to_string(export_id) + " is in flight";
  return std::nullopt;
}

void Core::commit_state(OpId id, OpId export_id) {
  if (const auto why = refuse_commit(export_id)) {
    return events_.finished(id, {.error = Error{ErrorCode::cancelled, "commit_state: " + *why, {}}});
  }
  server_.drop_readers_of(export_id);
  const StateExports::Released released = *exports_.release(export_id);
  exports_.keep(nullptr);
  const OpResult result{.error = {}, .tx_bytes = released.served_bytes};
  if (released.shadow == nullptr || released.shadow->missing() + released.shadow->unplanned() > 0) {
    return events_.finished(id, result);
  }
  auto copies = std::make_shared<std::vector<StateShadow::Copy>>(released.shadow->copies());
  parallel_for(workers_,
               {.count = copies->size(),
                .batch = 1,
                .body =
                    [copies, memory = released.shadow->memory()](std::uint64_t begin, std::uint64_t end) {
                      for (std::uint64_t i = begin; i < end; ++i) {
                        const StateShadow::Copy& copy = (*copies)[i];
                        std::memcpy(copy.to, copy.from, copy.bytes);
                      }
                    },
                .done = [this, id, result] { loop_.post([this, id, result] { events_.finished(id, result); }); }},
               std::make_shared<std::atomic<bool>>(false));
}

std::optional<Error> Core::probe(std::uint64_t id, const Member& target, ProbeDirection direction) {
  if (probes_.contains(id)) {
    return Error{ErrorCode::invalid_argument, "probe: one with id " + std::to_string(id) + " is under way", {}};
  }
  const View& view = epoch_->view();
  PathProbe::Request request{
      .target = target,
      .direction = direction,
      .hello = {ConnectionKind::probe, view.epoch, view.self, target.id, view.key},
      .connections = probe_connections_,
      .congestion_control = congestion_control_,
  };
  probes_[id] =
      std::make_unique<PathProbe>(loop_, resolver_, std::move(request), [this, id](const ProbeResult& result) {
        probes_.erase(id);
        events_.probed(id, result);
      });
  return std::nullopt;
}

void Core::stop_hashing() {
  exports_.stop_hashing();
  for (const auto& [id, fetch] : fetches_) fetch->stop_hashing();
}

void Core::join_helpers() {
  workers_.stop();
  resolver_.stop();
}

void Core::fail_all() {
  const Error why{ErrorCode::closed, "the engine was closed", {}};
  if (epoch_) epoch_->fail_all(why);
  for (const Waiting& waiting : std::exchange(waiting_, {})) {
    if (waiting.cancelled) continue;
    const std::string message = op_name(waiting.request.call) + ": " + why.message;
    events_.finished(waiting.request.id, {.error = Error{why.code, message, {}}});
  }
  server_.drop_all();
  probe_server_.drop_all();
  probes_.clear();
  while (!fetches_.empty()) fetches_.begin()->second->fail_now(why);
  exports_.fail_all(why);
}

Epoch Core::last_known_epoch() const {
  if (prepared_) return prepared_->view.epoch;
  return epoch_ ? epoch_->view().epoch : 0;
}

void Core::on_control(Link& link, const Frame& frame) {
  if (epoch_ && frame.epoch == epoch_->view().epoch) return epoch_->on_control(link, frame);
  if (frame.epoch > last_known_epoch()) return link.fail("a frame of an epoch that isn't prepared");
  if (!prepared_ || frame.epoch != prepared_->view.epoch) return;  // late
  if (prepared_->early_frames.size() >= limits::early_frames_max)
    return link.fail("too many frames before the install");
  prepared_->early_frames.emplace_back(link.peer(), frame);
}

Lane::Target Core::on_data(Link& link, const Frame& frame) {
  if (epoch_ && frame.epoch == epoch_->view().epoch) return epoch_->on_data(link, frame);
  const bool late = frame.epoch < last_known_epoch();
  if (!late) link.fail("data of an epoch that isn't installed");
  return {};
}

void Core::on_data_end(Link& link, const Frame& frame, const std::uint8_t* payload) {
  PCCL_CHECK(epoch_ && frame.epoch == epoch_->view().epoch);
  epoch_->on_data_end(link, frame, payload);
}

std::optional<Lane::Outgoing> Core::next_data(Link& link) { return epoch_ ? epoch_->next_data(link) : std::nullopt; }

void Core::on_unsent(Link& link, const ChunkId& chunk) {
  if (epoch_ && chunk.epoch == epoch_->view().epoch) epoch_->on_unsent(link, chunk);
}

void Core::on_up(Link&) { mesh_.on_up(); }

void Core::on_outdated(Link& link, LinkId later) { mesh_.on_outdated(link, later); }

void Core::on_broken(Link& link, const std::string& reason) {
  const PeerId peer = link.peer();
  const bool current = mesh_.find(peer) == &link;
  mesh_.on_broken(link);
  // While frozen, the next view's links are what counts: build() makes them again, or install() reports them.
  if (current && open()) events_.link_lost(epoch_->view().epoch, peer, reason);
}

const View* Core::known_view(Epoch epoch) const {
  if (prepared_ && prepared_->view.epoch == epoch) return &prepared_->view;
  return epoch_ && epoch_->view().epoch == epoch ? &epoch_->view() : nullptr;
}

Acceptor::Judgement Core::judge(const Hello& hello, Path path) {
  using Judgement = Acceptor::Judgement;
  const View* const view = known_view(hello.epoch);
  if (view == nullptr) return hello.epoch > last_known_epoch() ? Judgement::wait : Judgement::refuse;
  if (!same_key(hello.key, view->key) || !has_member(*view, hello.from)) return Judgement::refuse;
  const bool for_link = hello.to == view->self && hello.kind == ConnectionKind::link;
  if (path == Path::shm && !for_link) return Judgement::refuse;
  if (hello.to != view->self) {
    const bool ours = Relays::has_pair(view->relays, hello.from, hello.to);
    return ours && !relays_.full() ? Judgement::forward : Judgement::refuse;
  }
  if (for_link) return mesh_.judge(hello, path);
  const bool full = hello.kind == ConnectionKind::state ? server_.full() : probe_server_.full();
  return full ? Judgement::refuse : Judgement::accept;
}

Welcome Core::welcome(const Hello& hello) {
  return hello.kind == ConnectionKind::link ? mesh_.welcome(hello) : Welcome{};
}

void Core::accepted(const Hello& hello, Connection connection) {
  switch (hello.kind) {
    case ConnectionKind::link:
      return mesh_.add(hello, std::move(connection));
    case ConnectionKind::state:
      return server_.add(std::move(connection.fd));
    case ConnectionKind::probe:
      return probe_server_.add(std::move(connection.fd));
  }
}

void Core::forward(const Hello& hello, UniqueFd fd) {
  const std::vector<Member>& ring = known_view(hello.epoch)->ring;
  const auto to = std::find_if(ring.begin(), ring.end(), [&](const Member& member) { return member.id == hello.to; });
  PCCL_CHECK(to != ring.end());  // a relay's pairs are members: the engine checks views
  relays_.add(hello, *to, std::move(fd));
}

}  // namespace pccl
