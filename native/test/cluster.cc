#include "cluster.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>
#include <stdexcept>

namespace pccl::test {

TransportMode test_transport() {
  const char* const name = std::getenv("PCCL_TEST_TRANSPORT");
  return name != nullptr && std::strcmp(name, "shm") == 0 ? TransportMode::shm : TransportMode::tcp;
}

Awaited<std::vector<LinkFailure>> Peer::prepared_in(Epoch epoch) {
  const std::lock_guard lock(mutex);
  return prepared[epoch];
}

PendingOp Peer::start(const CollectiveCall& call) {
  Awaited<OpResult> result;
  return {engine->start(call, [result](OpId, const OpResult& value) { result.set(value); }), result};
}

PendingOp Peer::export_state(std::vector<ExportTensor> tensors) {
  Awaited<OpResult> result;
  return {engine->export_state(std::move(tensors), [result](OpId, const OpResult& value) { result.set(value); }),
          result};
}

PendingOp Peer::fetch_state(StateFetchCall call) {
  Awaited<OpResult> result;
  const auto callback = [result](OpId, const OpResult& value) { result.set(value); };
  return {engine->fetch_state(std::move(call), callback), result};
}

PendingOp Peer::commit_state(OpId export_id) {
  Awaited<OpResult> result;
  return {engine->commit_state(export_id, [result](OpId, const OpResult& value) { result.set(value); }), result};
}

Awaited<ProbeResult> Peer::probe(std::uint64_t probe_id, const Member& target, ProbeDirection direction) {
  Awaited<ProbeResult> result;
  {
    const std::lock_guard lock(mutex);
    probed[probe_id] = result;
  }
  engine->probe(probe_id, target, direction);
  return result;
}

Cluster::Cluster(std::size_t peers, std::vector<std::uint32_t> lanes, const Edit& edit, TransportMode transport)
    : transport_(transport), edit_(edit) {
  lanes.resize(peers, 1);
  for (std::size_t i = 0; i < peers; ++i) peers_.push_back(make_peer(lanes[i]));
  next_view();
}

std::unique_ptr<Peer> Cluster::make_peer(std::uint32_t lanes) {
  auto peer = std::make_unique<Peer>();
  peer->id = next_id_++;
  peer->engine = Engine::create({.connections_per_peer = lanes, .transport = transport_});
  Peer* const at = peer.get();
  peer->engine->set_control({
      .prepared = [at](Epoch epoch, const std::vector<LinkFailure>& failures) { at->prepared_in(epoch).set(failures); },
      .link_lost =
          [at](Epoch epoch, PeerId other, const std::string& reason) {
            at->lost.set({epoch, other, reason});
          },
      .stalled = [at](const StalledOp& op) { at->stalled.set(op); },
      .probed =
          [at](std::uint64_t id, const ProbeResult& result) {
            const std::lock_guard lock(at->mutex);
            at->probed[id].set(result);
          },
  });
  return peer;
}

Peer& Cluster::add() { return *peers_.emplace_back(make_peer(1)); }

void Cluster::kill(std::size_t rank) {
  peers_[rank]->engine->close();
  peers_.erase(peers_.begin() + static_cast<std::ptrdiff_t>(rank));
}

View Cluster::view_for(const Peer& peer) const {
  View view{.epoch = epoch_, .view_epoch = epoch_, .self = peer.id, .key = test_key, .ring = {}, .world_size = 0};
  for (const auto& member : peers_) view.ring.push_back(member->member());
  view.hosts.assign(peers_.size(), 0);
  view.world_size = static_cast<std::uint32_t>(peers_.size());
  if (edit_) edit_(view);
  return view;
}

std::vector<std::vector<OpReport>> Cluster::prepare() {
  ++epoch_;
  std::vector<std::vector<OpReport>> reports;
  for (const auto& peer : peers_) {
    const bool newcomer = !peer->engine->view().has_value();
    auto report = peer->engine->prepare(view_for(*peer), 30'000);
    if (!newcomer) reports.push_back(std::move(report));
  }
  return reports;
}

void Cluster::await_prepared() {
  for (const auto& peer : peers_) {
    const auto failures = peer->prepared_in(epoch_).get();
    if (!failures.empty()) throw std::runtime_error("prepare failed: " + failures.front().reason);
  }
}

std::vector<Verdict> Cluster::decide(const std::vector<std::vector<OpReport>>& reports) {
  std::set<OpKey> ops;
  for (const auto& report : reports) {
    for (const OpReport& op : report) ops.insert(op.key);
  }
  std::vector<Verdict> verdicts;
  for (const OpKey& key : ops) {
    bool committed = false;
    bool all_done = true;
    for (const auto& report : reports) {
      const auto found = std::find_if(report.begin(), report.end(),
                                      [&](const OpReport& op) { return op.key == key; });
      const OpState state = found == report.end() ? OpState::not_done : found->state;
      committed |= state == OpState::committed;
      all_done &= state == OpState::committed || state == OpState::done;
    }
    verdicts.push_back({key, committed || all_done});
  }
  return verdicts;
}

void Cluster::install(const std::vector<Verdict>& verdicts) {
  for (const auto& peer : peers_) peer->engine->install(epoch_, verdicts);
}

void Cluster::next_view() {
  const auto verdicts = decide(prepare());
  await_prepared();
  install(verdicts);
}

}  // namespace pccl::test
