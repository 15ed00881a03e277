// This peer's links, one per linked peer, kept over views as long as they live. build() makes those that a view
// needs.
//
// Both ends of a link must mean the same one, with the same counts of what came and went, so links have ids. A side
// that has given a link up never goes back to it: it makes one with a greater id, and the other side, which sees that
// id in a Hello, gives up its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pccl/engine.h"
#include "transport/acceptor.h"
#include "transport/event_loop.h"
#include "transport/link.h"

namespace pccl {

class Mesh {
 public:
  using Built = std::function<void(const std::vector<LinkFailure>&)>;

  Mesh(const Link::Context& context, const EngineOptions& options)
      : context_(context),
        lanes_(options.connections_per_peer),
        transport_(options.transport),
        congestion_control_(options.congestion_control) {}

  // `built` is called once, when every link of the view is up or the time is over, unless another build() comes
  // first. Until it is called, a link that is given up is made anew.
  void build(const View& view, std::chrono::milliseconds timeout, Built built);
  // The view is installed: links that it doesn't need, and those that were never up, are closed.
  void settle();

  // Of a Hello that fits a view of this peer.
  Acceptor::Judgement judge(const Hello& hello, Path path);
  Welcome welcome(const Hello& hello) const;
  void add(const Hello& hello, Connection connection);

  Link* find(PeerId peer);
  // What Link::Owner hears.
  void on_up();
  void on_outdated(Link& link, LinkId later);
  void on_broken(Link& link);
  // Members that the view wants a link to, and there is none.
  std::vector<PeerId> missing() const;

 private:
  using Links = std::map<PeerId, std::unique_ptr<Link>>;

  Link::Settings settings_for(const View& view, std::uint32_t rank, std::uint32_t other) const;
  void make(PeerId peer, LinkId id);
  Links::iterator drop(Links::iterator at);
  void time_is_over(std::chrono::milliseconds timeout);

  const Link::Context context_;
  const std::uint32_t lanes_;  // that each link is to have over TCP; 0: as it finds out
  const TransportMode transport_;
  const std::string congestion_control_;
  Links links_;

  View view_;
  bool settled_ = true;
  std::map<PeerId, Link::Settings> wanted_;
  EventLoop::Timer timeout_;
  Built built_;
};

}  // namespace pccl
