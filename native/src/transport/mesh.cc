#include "transport/mesh.h"

#include <algorithm>
#include <utility>

#include "transport/ring_links.h"

namespace pccl {

void Mesh::build(const View& view, std::chrono::milliseconds timeout, Built built) {
  const bool again = !settled_ && view.epoch == view_.epoch;
  view_ = view;
  settled_ = false;
  built_ = std::move(built);
  wanted_.clear();
  const auto size = static_cast<std::uint32_t>(view.ring.size());
  std::uint32_t rank = 0;
  while (view.ring[rank].id != view.self) ++rank;
  for (const std::uint32_t other : linked_ranks(rank, size)) {
    wanted_[view.ring[other].id] = settings_for(view, rank, other);
  }
  for (const auto& [peer, settings] : wanted_) {
    const auto found = links_.find(peer);
    // Only a link that has been up is one that both sides know.
    if (found != links_.end() && (again || found->second->established())) {
      found->second->set(settings);
      continue;
    }
    if (found != links_.end()) drop(found);
    make(peer, {view.epoch, 0});
  }
  timeout_ = EventLoop::Timer(context_.loop, timeout, [this, timeout] { time_is_over(timeout); });
  on_up();
}

Link::Settings Mesh::settings_for(const View& view, std::uint32_t rank, std::uint32_t other) const {
  const Member& member = view.ring[other];
  const Hello hello{.epoch = view.epoch, .from = view.self, .to = member.id, .key = view.key, .lanes = lanes_};
  const bool same_host = !member.via && !view.hosts.empty() && view.hosts[rank] == view.hosts[other];
  const bool shm = same_host && transport_ != TransportMode::tcp;
  Link::Settings settings{
      .target = {hello, shm ? Path::shm : Path::tcp, member.host, member.port, congestion_control_},
      .silence = std::chrono::milliseconds(view.silence_ms),
      .tcp_allowed = transport_ != TransportMode::shm,
  };
  if (transport_ == TransportMode::shm && !same_host) {
    settings.impossible = std::string("this peer's transport is shm, and the other one ") +
                          (member.via ? "is reached through a relay" : "runs on another host, or with transport tcp");
  }
  return settings;
}

void Mesh::settle() {
  settled_ = true;
  built_ = nullptr;
  timeout_.reset();
  for (auto at = links_.begin(); at != links_.end();) {
    const bool stays = wanted_.contains(at->first) && at->second->established();
    if (stays) at->second->settle();
    at = stays ? std::next(at) : drop(at);
  }
}

void Mesh::make(PeerId peer, LinkId id) {
  links_[peer] = std::make_unique<Link>(context_, id, wanted_.at(peer));
}

// A link may be in the middle of a call that led here, so it goes when that has returned.
Mesh::Links::iterator Mesh::drop(Links::iterator at) {
  at->second->close();
  context_.loop.defer([dead = std::shared_ptr<Link>(std::move(at->second))] {});
  return links_.erase(at);
}

Acceptor::Judgement Mesh::judge(const Hello& hello, Path path) {
  using Judgement = Acceptor::Judgement;
  const auto wanted = wanted_.find(hello.from);
  if (wanted == wanted_.end() || hello.link.epoch > view_.epoch) return Judgement::refuse;
  const bool allowed = path == Path::shm ? wanted->second.target.path == Path::shm : wanted->second.tcp_allowed;
  if (!allowed) return Judgement::refuse;
  Link* const link = find(hello.from);
  if (link == nullptr) return settled_ ? Judgement::gone : Judgement::accept;
  if (hello.link == link->id()) return link->expects(hello, path) ? Judgement::accept : Judgement::refuse;
  if (hello.link < link->id()) return Judgement::gone;
  if (!settled_) return Judgement::accept;
  // Ops have begun, and what they said on the old link may be lost.
  link->fail("the peer has given the link up");
  return Judgement::gone;
}

Welcome Mesh::welcome(const Hello& hello) const {
  const auto found = links_.find(hello.from);
  const LinkId id = found == links_.end() ? hello.link : std::max(hello.link, found->second->id());
  return {Welcome::Status::welcome, id, lanes_};
}

void Mesh::add(const Hello& hello, Connection connection) {
  const auto found = links_.find(hello.from);
  if (found != links_.end() && found->second->id() < hello.link) drop(found);
  if (!links_.contains(hello.from)) make(hello.from, hello.link);
  links_.at(hello.from)->add(hello, std::move(connection));
}

Link* Mesh::find(PeerId peer) {
  const auto found = links_.find(peer);
  return found == links_.end() ? nullptr : found->second.get();
}

void Mesh::on_outdated(Link& link, LinkId later) {
  const auto found = links_.find(link.peer());
  if (settled_ || found == links_.end() || found->second.get() != &link || later.epoch > view_.epoch) return;
  if (!wanted_.contains(link.peer())) return;
  drop(found);
  make(link.peer(), later);
}

void Mesh::on_broken(Link& link) {
  const auto found = links_.find(link.peer());
  if (found == links_.end() || found->second.get() != &link) return;
  const PeerId peer = link.peer();
  const LinkId id = link.id();
  drop(found);
  if (!built_ || !wanted_.contains(peer)) return;
  make(peer, {view_.epoch, id.epoch == view_.epoch ? id.attempt + 1 : 0});
}

std::vector<PeerId> Mesh::missing() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, settings] : wanted_) {
    const auto found = links_.find(peer);
    if (found == links_.end() || !found->second->established()) peers.push_back(peer);
  }
  return peers;
}

void Mesh::on_up() {
  if (!built_) return;
  for (const auto& [peer, settings] : wanted_) {
    const auto found = links_.find(peer);
    if (found == links_.end() || !found->second->up()) return;
  }
  timeout_.reset();
  // Later in this turn, so that build() has returned when the caller hears of it.
  context_.loop.defer([built = std::exchange(built_, nullptr)] { built({}); });
}

void Mesh::time_is_over(std::chrono::milliseconds timeout) {
  std::vector<LinkFailure> failures;
  for (const auto& [peer, settings] : wanted_) {
    const auto found = links_.find(peer);
    if (found != links_.end() && found->second->up()) continue;
    const std::string why = found == links_.end() ? "the link is gone" : found->second->state();
    failures.push_back({peer, why + " (within " + std::to_string(timeout.count()) + " ms)"});
    // Whoever waits for it has been told; the next view makes it anew.
    if (found != links_.end() && !found->second->established()) drop(found);
  }
  if (const Built built = std::exchange(built_, nullptr)) built(failures);
}

}  // namespace pccl
