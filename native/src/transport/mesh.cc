#include "transport/mesh.h"

#include <utility>

#include "base/limits.h"
#include "transport/ring_links.h"

namespace pccl {

void Mesh::build(const View& view, std::chrono::milliseconds timeout, Built built) {
  const bool same_view = !settled_ && view.epoch == view_.epoch;
  view_ = view;
  settled_ = false;
  built_ = std::move(built);
  wanted_.clear();
  const auto size = static_cast<std::uint32_t>(view.ring.size());
  std::uint32_t rank = 0;
  while (view.ring[rank].id != view.self) ++rank;
  for (const std::uint32_t other : linked_ranks(rank, size)) {
    wanted_[view.ring[other].id] = Wanted{view.ring[other], rank < other};
  }
  if (!same_view) dials_.clear();
  for (const auto& [peer, wanted] : wanted_) {
    if (wanted.dials && !links_.contains(peer) && !dials_.contains(peer)) dial(wanted, {});
  }
  time_left_ = true;
  timeout_ = EventLoop::Timer(loop_, timeout, [this, timeout] { time_is_over(timeout); });
  report_if_complete();
}

void Mesh::settle() {
  settled_ = true;
  time_left_ = false;
  built_ = nullptr;
  timeout_.reset();
  dials_.clear();
  for (auto at = links_.begin(); at != links_.end();) {
    auto& [peer, link] = *at;
    if (wanted_.contains(peer)) {
      ++at;
      continue;
    }
    link->close();
    bury(std::move(link));
    at = links_.erase(at);
  }
}

bool Mesh::expects(const Hello& hello) const {
  const auto wanted = wanted_.find(hello.from);
  return !settled_ && hello.epoch == view_.epoch && wanted != wanted_.end() && !wanted->second.dials;
}

void Mesh::add(PeerId peer, UniqueFd fd) {
  auto& link = links_[peer];
  if (link) {
    link->close();
    bury(std::move(link));
  }
  link = std::make_unique<Link>(loop_, owner_, peer, std::move(fd));
  report_if_complete();
}

void Mesh::dial(const Wanted& wanted, EventLoop::Clock::duration delay) {
  const PeerId peer = wanted.member.id;
  Dial::Request request{
      .hello = {ConnectionKind::link, view_.epoch, view_.self, peer, view_.key},
      .host = wanted.member.host,
      .port = wanted.member.port,
      .retry = true,
      .first_delay = delay,
  };
  Dial::Outcome outcome{
      .connected =
          [this, peer](UniqueFd fd) {
            dials_.erase(peer);
            add(peer, std::move(fd));
          },
      .gave_up = nullptr,
  };
  dials_[peer] = std::make_unique<Dial>(loop_, resolver_, std::move(request), std::move(outcome));
}

Link* Mesh::find(PeerId peer) {
  const auto found = links_.find(peer);
  return found == links_.end() ? nullptr : found->second.get();
}

void Mesh::remove(Link& link) {
  const auto found = links_.find(link.peer());
  if (found == links_.end() || found->second.get() != &link) return;
  bury(std::move(found->second));
  links_.erase(found);
  const auto wanted = wanted_.find(link.peer());
  if (time_left_ && wanted != wanted_.end() && wanted->second.dials) dial(wanted->second, limits::dial_retry_delay_min);
}

std::vector<PeerId> Mesh::missing() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, wanted] : wanted_) {
    if (!links_.contains(peer)) peers.push_back(peer);
  }
  return peers;
}

void Mesh::report_if_complete() {
  if (!built_ || !missing().empty()) return;
  // Later in this turn, so that build() has returned when the caller hears of it.
  loop_.defer([built = std::exchange(built_, nullptr)] { built({}); });
}

void Mesh::time_is_over(std::chrono::milliseconds timeout) {
  time_left_ = false;
  std::vector<LinkFailure> failures;
  for (const PeerId peer : missing()) {
    const auto dialled = dials_.find(peer);
    const std::string within = " (within " + std::to_string(timeout.count()) + " ms)";
    failures.push_back({peer, dialled != dials_.end() ? dialled->second->state() + within
                                                      : "the peer, whose turn it is to dial, didn't connect" + within});
  }
  dials_.clear();
  if (const Built built = std::exchange(built_, nullptr)) built(failures);
}

// A link may be in the middle of a call that led here, so it goes when that has returned.
void Mesh::bury(std::unique_ptr<Link> link) {
  loop_.defer([dead = std::shared_ptr<Link>(std::move(link))] {});
}

}  // namespace pccl
