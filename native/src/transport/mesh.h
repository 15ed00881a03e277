// This peer's links, one per linked peer, kept over views as long as they are healthy. build() makes those that a
// view needs: the lower rank of a pair dials, the other one waits for it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pccl/engine.h"
#include "transport/acceptor.h"
#include "transport/dial.h"
#include "transport/event_loop.h"
#include "transport/link.h"
#include "transport/resolver.h"

namespace pccl {

class Mesh {
 public:
  using Built = std::function<void(const std::vector<LinkFailure>&)>;

  Mesh(EventLoop& loop, Resolver& resolver, Link::Owner& owner) : loop_(loop), resolver_(resolver), owner_(owner) {}

  // `built` is called once, when every link of the view is up or the time is over, unless another build() comes
  // first. Until settle() a link that breaks is made anew while time is left.
  void build(const View& view, std::chrono::milliseconds timeout, Built built);
  // The view is installed: links that it doesn't need are closed.
  void settle();

  // Does the peer dial for a link of the view that is being built, as it is its turn to?
  bool expects(const Hello& hello) const;
  // Takes the place of a link to the same peer: that one must be dead, and its end only hasn't been seen yet.
  void add(PeerId peer, UniqueFd fd);

  Link* find(PeerId peer);
  // After Link::Owner::on_broken.
  void remove(Link& link);
  // Members that the view wants a link to, and there is none.
  std::vector<PeerId> missing() const;

 private:
  struct Wanted {
    Member member;
    bool dials = false;  // this peer does
  };

  void dial(const Wanted& wanted, EventLoop::Clock::duration delay);
  void report_if_complete();
  void time_is_over(std::chrono::milliseconds timeout);
  void bury(std::unique_ptr<Link> link);

  EventLoop& loop_;
  Resolver& resolver_;
  Link::Owner& owner_;
  std::map<PeerId, std::unique_ptr<Link>> links_;

  View view_;
  bool settled_ = true;
  std::map<PeerId, Wanted> wanted_;
  std::map<PeerId, std::unique_ptr<Dial>> dials_;
  EventLoop::Timer timeout_;
  bool time_left_ = false;
  Built built_;
};

}  // namespace pccl
