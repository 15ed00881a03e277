// The public Engine: checks calls on the caller's thread, keeps who is in flight, and hands the work to the I/O
// thread, or does it in that one's place.
#include "pccl/engine.h"

#include <algorithm>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/collectives.h"
#include "base/dtype.h"
#include "base/limits.h"
#include "engine/call_checks.h"
#include "engine/core.h"
#include "engine/host_id.h"
#include "engine/leases.h"
#include "transport/local_socket.h"
#include "transport/ring_links.h"
#include "transport/socket.h"

namespace pccl {
namespace {

[[noreturn]] void refuse(ErrorCode code, const std::string& message) { throw EngineError({code, message, {}}); }

void check_options(const EngineOptions& options) {
  if (options.connections_per_peer > limits::connections_per_peer_max) {
    refuse(ErrorCode::invalid_argument,
           "create engine: " + std::to_string(options.connections_per_peer) + " connections per peer");
  }
  if (options.ops_in_flight_max < 1 || options.ops_in_flight_max > limits::ops_in_flight_max) {
    refuse(ErrorCode::invalid_argument,
           "create engine: " + std::to_string(options.ops_in_flight_max) + " ops in flight at most");
  }
}

void check_view(const View& view) {
  const std::string name = "prepare epoch " + std::to_string(view.epoch) + ": ";
  if (view.epoch == 0) refuse(ErrorCode::invalid_argument, "prepare: epochs begin at 1");
  if (view.ring.empty() || view.ring.size() > limits::group_size_max) {
    refuse(ErrorCode::invalid_argument, name + "the ring has " + std::to_string(view.ring.size()) + " members");
  }
  std::set<PeerId> ids;
  if (view.world_size == 0) refuse(ErrorCode::invalid_argument, name + "the world has no peers");
  if (view.silence_ms < limits::silence_ms_min || view.silence_ms > limits::silence_ms_max) {
    refuse(ErrorCode::invalid_argument, name + "silence of " + std::to_string(view.silence_ms) + " ms is out of range");
  }
  std::map<PeerId, std::uint32_t> ranks;
  for (std::uint32_t rank = 0; rank < view.ring.size(); ++rank) {
    const PeerId id = view.ring[rank].id;
    const std::string who = name + "peer " + std::to_string(id);
    if (!ranks.emplace(id, rank).second) refuse(ErrorCode::invalid_argument, who + " is in the ring twice");
  }
  if (!ranks.contains(view.self)) {
    refuse(ErrorCode::invalid_argument, name + "this peer, " + std::to_string(view.self) + ", is not in the ring");
  }
  const auto check_reachable = [&](const Member& member, const char* why) {
    if (!member.host.empty() && member.port != 0) return;
    refuse(ErrorCode::invalid_argument,
           name + "peer " + std::to_string(member.id) + ", " + why + ", has no host or port");
  };
  for (const std::uint32_t rank : linked_ranks(ranks[view.self], static_cast<std::uint32_t>(view.ring.size()))) {
    check_reachable(view.ring[rank], "to be linked with");
  }
  if (!view.hosts.empty() && view.hosts.size() != view.ring.size()) {
    refuse(ErrorCode::invalid_argument,
           name + std::to_string(view.hosts.size()) + " hosts for " + std::to_string(view.ring.size()) + " members");
  }
  for (const RelayPair& pair : view.relays) {
    if (pair.a == pair.b) refuse(ErrorCode::invalid_argument, name + "a relay between a peer and itself");
    for (const PeerId id : {pair.a, pair.b}) {
      const auto found = ranks.find(id);
      if (found == ranks.end() || id == view.self) {
        refuse(ErrorCode::invalid_argument, name + "a relay for peer " + std::to_string(id) + ", no other member");
      }
      check_reachable(view.ring[found->second], "to be forwarded to");
    }
  }
}

void check_tensors(const std::vector<ExportTensor>& tensors) {
  const std::string name = "export_state: ";
  if (tensors.empty() || tensors.size() > limits::state_tensors_max) {
    refuse(ErrorCode::invalid_argument, name + std::to_string(tensors.size()) + " tensors");
  }
  for (const ExportTensor& tensor : tensors) {
    if (tensor.name.empty() || tensor.name.size() > limits::tensor_name_bytes_max) {
      refuse(ErrorCode::invalid_argument, name + "a name of " + std::to_string(tensor.name.size()) +
                                              " bytes; allowed are 1 to " +
                                              std::to_string(limits::tensor_name_bytes_max));
    }
    const bool there = tensor.bytes == 0 || (tensor.data != nullptr && tensor.bytes <= PTRDIFF_MAX);
    if (!there) refuse(ErrorCode::invalid_argument, name + "tensor " + tensor.name + " has no memory");
  }
}

void check_fetch(const StateFetchCall& call) {
  const std::string name = "fetch_state: ";
  if (call.targets.empty()) refuse(ErrorCode::invalid_argument, name + "nothing to fetch");
  if (call.sources.empty() || call.sources.size() > limits::state_sources_max) {
    refuse(ErrorCode::invalid_argument, name + std::to_string(call.sources.size()) + " sources");
  }
  for (const StateSource& source : call.sources) {
    if (!source.member.host.empty() && source.member.port != 0) continue;
    refuse(ErrorCode::invalid_argument, name + "peer " + std::to_string(source.member.id) + " has no host or port");
  }
  if (call.share >= call.shares) refuse(ErrorCode::invalid_argument, name + "the share is out of range");
}

// What a caller may move by itself: all of it takes less time than two threads' wake-ups.
bool is_short(const CollectiveCall& call) {
  return std::max(call.send_count, call.recv_count) * element_bytes(call.dtype) <= limits::driven_bytes_max;
}

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(const EngineOptions& options);
  ~EngineImpl() override { close(); }

  std::uint16_t port() const override { return port_; }
  const std::string& host_id() const override { return host_id_; }
  std::optional<InstalledView> view() const override;

  OpId start(const CollectiveCall& call, OpCallback callback) override;
  bool cancel(OpId id) override;

  OpId export_state(std::vector<ExportTensor> tensors, OpCallback callback) override;
  std::vector<Hash128> hashes(OpId export_id) const override;
  std::uint64_t release_state(OpId export_id) override;
  OpId fetch_state(StateFetchCall call, OpCallback callback) override;
  OpId commit_state(OpId export_id, OpCallback callback) override;
  std::string changed_tensor(OpId export_id) const override;

  void set_control(ControlCallbacks callbacks) override;
  std::vector<OpReport> prepare(const View& view, std::uint32_t timeout_ms) override;
  void install(Epoch epoch, const std::vector<Verdict>& verdicts) override;
  void set_world(Epoch view_epoch, std::uint32_t world_size) override;
  bool abort_if_missing(Epoch epoch, const OpKey& key, PeerId peer) override;
  void probe(std::uint64_t id, const Member& target, ProbeDirection direction) override;

  void close() override;

 private:
  struct Call {
    OpCallback callback;
    bool collective = false;
    std::optional<std::uint64_t> tag = {};  // taken until it ends
    bool exports = false;                   // its memory stays in use until it is released
    std::optional<OpId> frees = {};         // the export whose memory isn't in use any more when it ends
  };

  // These two with mutex_ held.
  void check_open(const char* operation) const;
  void lease(const char* operation, OpId id, const std::vector<Leases::Range>& ranges);
  // Enters the call and hands its task to the I/O thread. With mutex_ held, so that nothing can follow close().
  void enter(OpId id, Call call, EventLoop::Task task);
  void finished(OpId id, const OpResult& result);

  // Runs `question` on the I/O thread, which never blocks, and returns what it returns.
  template <typename F>
  auto ask(const char* operation, F question) const;
  template <typename F>
  auto ask_unchecked(F question) const;

  const std::uint32_t ops_in_flight_max_;
  mutable EventLoop loop_;
  std::uint16_t port_ = 0;
  std::string host_id_;
  std::unique_ptr<Core> core_;

  mutable std::mutex mutex_;
  bool closed_ = false;
  std::optional<InstalledView> view_;
  OpId next_id_ = 1;
  std::unordered_map<OpId, Call> calls_;
  std::uint32_t collectives_ = 0;  // in flight
  std::set<std::uint64_t> tags_;
  Leases leases_;

  std::mutex control_mutex_;
  ControlCallbacks control_;

  std::mutex close_mutex_;
  std::thread thread_;
};

EngineImpl::EngineImpl(const EngineOptions& options) : ops_in_flight_max_(options.ops_in_flight_max) {
  check_options(options);
  UniqueFd listener = listen_tcp(options.host, options.port, options.congestion_control);
  port_ = local_port(listener.get());
  UniqueFd local_listener;
  if (options.transport != TransportMode::tcp) {
    local_listener = listen_local(port_);
    if (local_listener) host_id_ = read_host_id();
    if (host_id_.empty() && options.transport == TransportMode::shm) {
      const std::string why = local_listener ? "this host has no boot id or no network namespace" : errno_text(errno);
      refuse(ErrorCode::io, "create engine: no shared memory with transport shm: " + why);
    }
  }
  Core::Events events{
      .finished = [this](OpId id, const OpResult& result) { finished(id, result); },
      .installed =
          [this](const InstalledView& view) {
            const std::lock_guard lock(mutex_);
            view_ = view;
          },
      .prepared =
          [this](Epoch epoch, const std::vector<LinkFailure>& failures) {
            const std::lock_guard lock(control_mutex_);
            if (control_.prepared) control_.prepared(epoch, failures);
          },
      .link_lost =
          [this](Epoch epoch, PeerId peer, const std::string& reason) {
            const std::lock_guard lock(control_mutex_);
            if (control_.link_lost) control_.link_lost(epoch, peer, reason);
          },
      .stalled =
          [this](const StalledOp& op) {
            const std::lock_guard lock(control_mutex_);
            if (control_.stalled) control_.stalled(op);
          },
      .probed =
          [this](std::uint64_t id, const ProbeResult& result) {
            const std::lock_guard lock(control_mutex_);
            if (control_.probed) control_.probed(id, result);
          },
  };
  core_ = std::make_unique<Core>(loop_, std::move(listener), std::move(local_listener), options, std::move(events));
  thread_ = std::thread([this] { loop_.run(); });
}

std::optional<InstalledView> EngineImpl::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

void EngineImpl::check_open(const char* operation) const {
  if (closed_) refuse(ErrorCode::closed, std::string(operation) + ": the engine is closed");
}

void EngineImpl::lease(const char* operation, OpId id, const std::vector<Leases::Range>& ranges) {
  for (const Leases::Range& range : ranges) {
    if (const auto holder = leases_.holder(range)) {
      refuse(ErrorCode::buffer_in_use, std::string(operation) + ": a buffer overlaps one of call " +
                                           std::to_string(*holder) + ", which is in flight");
    }
  }
  for (const Leases::Range& range : ranges) leases_.take(id, range);
}

void EngineImpl::enter(OpId id, Call call, EventLoop::Task task) {
  calls_.emplace(id, std::move(call));
  const bool taken = loop_.post(std::move(task));
  PCCL_CHECK(taken);
}

void EngineImpl::finished(OpId id, const OpResult& result) {
  OpCallback callback;
  {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(id);
    PCCL_CHECK(found != calls_.end());
    // Free before the caller hears of it, so that it can call again at once.
    if (found->second.collective) {
      --collectives_;
      loop_.expect(false);
    }
    if (found->second.tag) tags_.erase(*found->second.tag);
    if (!found->second.exports || result.error) leases_.give_back(id);
    if (found->second.frees) leases_.give_back(*found->second.frees);
    callback = std::move(found->second.callback);
    calls_.erase(found);
  }
  callback(id, result);
}

template <typename F>
auto EngineImpl::ask_unchecked(F question) const {
  auto promise = std::make_shared<std::promise<std::invoke_result_t<F>>>();
  auto answer = promise->get_future();
  const bool taken =
      loop_.post([promise, question = std::move(question)]() mutable { promise->set_value(question()); });
  PCCL_CHECK(taken);
  return answer;
}

template <typename F>
auto EngineImpl::ask(const char* operation, F question) const {
  if (loop_.is_mine()) {
    refuse(ErrorCode::internal, std::string(operation) + ": called from one of the engine's callbacks");
  }
  auto answer = [&] {
    const std::lock_guard lock(mutex_);
    check_open(operation);
    return ask_unchecked(std::move(question));
  }();
  return answer.get();
}

OpId EngineImpl::start(const CollectiveCall& call, OpCallback callback) {
  check_call(call);
  const CollectiveTraits& kind = traits(call.kind);
  const std::string name = std::string(kind.name) + ": ";
  std::unique_lock lock(mutex_);
  check_open(kind.name);
  if (!view_) refuse(ErrorCode::not_installed, name + "no view has been installed yet");
  if (kind.bound_to_view && call.ring_epoch != 0 && call.ring_epoch != view_->ring_epoch) {
    refuse(ErrorCode::peer_lost, name + "the view changed to epoch " + std::to_string(view_->epoch) +
                                     " before it began, and with it the ranks; call it again");
  }
  check_call_in(call, *view_);
  const auto tag = kind.of_two ? std::nullopt : std::optional(call.tag);
  if (tag && tags_.contains(*tag)) {
    refuse(ErrorCode::tag_in_use, name + "an op with tag " + std::to_string(*tag) + " is in flight");
  }
  if (collectives_ >= ops_in_flight_max_) {
    refuse(ErrorCode::too_many_ops, name + std::to_string(collectives_) + " ops are in flight");
  }
  const OpId id = next_id_++;
  lease(kind.name, id, ranges_of(call, *view_));
  if (tag) tags_.insert(*tag);
  ++collectives_;
  loop_.expect(true);
  const Op::Request request{id, call, view_->ring_epoch, std::chrono::steady_clock::now()};
  Call entry{.callback = std::move(callback), .collective = true, .tag = tag};
  // Taken with mutex_ held, as a task is posted: close() comes before or after.
  const bool waits = view_->group_size > 1;
  auto driver = collectives_ == 1 && is_short(call) ? loop_.try_drive(waits) : std::nullopt;
  if (!driver) {
    enter(id, std::move(entry), [this, request] { core_->start(request); });
    return id;
  }
  calls_.emplace(id, std::move(entry));
  lock.unlock();
  driver->run([&] { core_->start(request); });
  driver->look_around();
  return id;
}

bool EngineImpl::cancel(OpId id) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
  }
  return ask("cancel", [this, id] { return core_->cancel(id); });
}

OpId EngineImpl::export_state(std::vector<ExportTensor> tensors, OpCallback callback) {
  check_tensors(tensors);
  std::vector<Leases::Range> ranges;
  for (const ExportTensor& tensor : tensors) {
    // A tensor without elements has a hash like any other; nobody will need to fetch it.
    if (tensor.bytes > 0) ranges.push_back(Leases::range(tensor.data, tensor.bytes, Leases::Use::shared));
  }
  const std::lock_guard lock(mutex_);
  check_open("export_state");
  const OpId id = next_id_++;
  lease("export_state", id, ranges);
  enter(id, {.callback = std::move(callback), .exports = true},
        [this, id, tensors = std::move(tensors)]() mutable { core_->export_state(id, std::move(tensors)); });
  return id;
}

std::vector<Hash128> EngineImpl::hashes(OpId export_id) const {
  const auto hashes = ask("hashes", [this, export_id] { return core_->hashes(export_id); });
  if (!hashes) {
    refuse(ErrorCode::invalid_argument,
           "hashes: " + std::to_string(export_id) + " is no export, or its hashing hasn't ended");
  }
  return *hashes;
}

std::uint64_t EngineImpl::release_state(OpId export_id) {
  const auto released = ask("release_state", [this, export_id] { return core_->release_state(export_id); });
  if (!released) {
    refuse(ErrorCode::invalid_argument, "release_state: " + std::to_string(export_id) + " is no export");
  }
  released->unread.wait();
  // Whoever waits for the hashes hears that they won't come.
  ask("release_state", [this, export_id] {
    {
      const std::lock_guard lock(mutex_);
      if (!calls_.contains(export_id)) {
        leases_.give_back(export_id);
        return true;
      }
    }
    finished(export_id, {.error = Error{ErrorCode::cancelled, "export_state: released before it was hashed", {}}});
    return true;
  });
  return released->served_bytes;
}

std::string EngineImpl::changed_tensor(OpId export_id) const {
  // What a peer has said of it may have arrived, and not been read: the next turn of the loop reads it.
  ask("changed_tensor", [] { return true; });
  const auto name = ask("changed_tensor", [this, export_id] { return core_->changed_tensor(export_id); });
  if (!name) refuse(ErrorCode::invalid_argument, "changed_tensor: " + std::to_string(export_id) + " is no export");
  return *name;
}

OpId EngineImpl::fetch_state(StateFetchCall call, OpCallback callback) {
  check_fetch(call);
  if (!view()) refuse(ErrorCode::not_installed, "fetch_state: no view has been installed yet");
  const auto why = ask("fetch_state", [this, &call] { return core_->refuse_fetch(call); });
  if (why) refuse(ErrorCode::invalid_argument, "fetch_state: " + *why);
  const std::lock_guard lock(mutex_);
  check_open("fetch_state");
  const OpId id = next_id_++;
  enter(id, {.callback = std::move(callback)}, [this, id, call = std::move(call)] { core_->fetch_state(id, call); });
  return id;
}

OpId EngineImpl::commit_state(OpId export_id, OpCallback callback) {
  const auto why = ask("commit_state", [this, export_id] { return core_->refuse_commit(export_id); });
  if (why) refuse(ErrorCode::invalid_argument, "commit_state: " + *why);
  const std::lock_guard lock(mutex_);
  check_open("commit_state");
  const OpId id = next_id_++;
  enter(id, {.callback = std::move(callback), .frees = export_id},
        [this, id, export_id] { core_->commit_state(id, export_id); });
  return id;
}

void EngineImpl::set_control(ControlCallbacks callbacks) {
  const std::lock_guard lock(control_mutex_);
  control_ = std::move(callbacks);
}

std::vector<OpReport> EngineImpl::prepare(const View& view, std::uint32_t timeout_ms) {
  check_view(view);
  auto answer = ask("prepare", [&] { return core_->prepare(view, std::chrono::milliseconds(timeout_ms)); });
  if (const Error* error = std::get_if<Error>(&answer)) throw EngineError(*error);
  return std::get<std::vector<OpReport>>(std::move(answer));
}

void EngineImpl::install(Epoch epoch, const std::vector<Verdict>& verdicts) {
  const auto error = ask("install", [&] { return core_->install(epoch, verdicts); });
  if (error) throw EngineError(*error);
}

void EngineImpl::set_world(Epoch view_epoch, std::uint32_t world_size) {
  if (world_size == 0) refuse(ErrorCode::invalid_argument, "set_world: the world has no peers");
  const auto error = ask("set_world", [&] { return core_->set_world(view_epoch, world_size); });
  if (error) throw EngineError(*error);
}

bool EngineImpl::abort_if_missing(Epoch epoch, const OpKey& key, PeerId peer) {
  return ask("abort_if_missing", [&] { return core_->abort_if_missing(epoch, key, peer); });
}

void EngineImpl::probe(std::uint64_t id, const Member& target, ProbeDirection direction) {
  const std::string name = "probe: peer " + std::to_string(target.id);
  if (target.host.empty() || target.port == 0) refuse(ErrorCode::invalid_argument, name + " has no host or port");
  const std::optional<InstalledView> installed = view();
  if (!installed) refuse(ErrorCode::not_installed, "probe: no view has been installed yet");
  if (target.id == installed->self) refuse(ErrorCode::invalid_argument, name + " is this one");
  const auto error = ask("probe", [&] { return core_->probe(id, target, direction); });
  if (error) throw EngineError(*error);
}

void EngineImpl::close() {
  // A thread can't wait for its own end: whoever lets a callback hold the last reference finds out here.
  PCCL_CHECK(!loop_.is_mine());
  const std::lock_guard closing(close_mutex_);
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  ask_unchecked([this] {
    core_->stop_hashing();
    return true;
  }).wait();
  core_->join_helpers();
  loop_.post([this] { core_->fail_all(); });
  loop_.stop();
  thread_.join();
  core_.reset();
  // An export that was being released; its memory isn't read any more.
  while (!calls_.empty()) {
    finished(calls_.begin()->first, {.error = Error{ErrorCode::closed, "the engine was closed", {}}});
  }
}

}  // namespace

std::shared_ptr<Engine> Engine::create(const EngineOptions& options) {
  try {
    return std::make_shared<EngineImpl>(options);
  } catch (const std::system_error& error) {
    throw EngineError({ErrorCode::io, std::string("create engine: ") + error.what(), {}});
  }
}

}  // namespace pccl
