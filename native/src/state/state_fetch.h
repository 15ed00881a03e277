// Fetches what an export lacks, from all of its sources at once, and verifies it on the pool's threads.
//
// First come the hash trees of the tensors, each from any source, since the root proves it. Then the leaves that
// differ: whoever has room for more questions takes the next ones from one queue, so that faster sources give more.
// What a source owes when it breaks goes back to the queue; what was verified stays. When nothing is left to be asked
// for, a source with nothing to do takes over what the slowest one owes. Sources that fetch themselves are asked for
// the leaves that they say they have. A source on this host lends its memory, and is read without its help.
//
// I/O thread only.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/worker_pool.h"
#include "pccl/engine.h"
#include "state/fetch_source.h"
#include "state/leaf_queue.h"
#include "state/state_shadow.h"
#include "transport/event_loop.h"
#include "transport/resolver.h"

namespace pccl {

class StateFetch final : FetchSource::Owner {
 public:
  // Called once, when no thread works for the fetch any more, as the last thing: it may destroy it.
  using Finished = std::function<void(const OpResult&)>;
  struct Context {
    EventLoop& loop;
    Resolver& resolver;
    WorkerPool& pool;
    std::function<std::optional<StateRoute>(const Member&)> route_to;
  };

  StateFetch(const Context& context, std::shared_ptr<StateShadow> shadow, const StateFetchCall& call,
             Finished finished);
  StateFetch(const StateFetch&) = delete;

  OpId export_id() const { return export_id_; }
  const std::shared_ptr<StateShadow>& shadow() const { return shadow_; }
  // It ends soon, with this error.
  void cancel(const Error& why);
  // The threads let go of what they are at soon.
  void stop_hashing() { *stop_ = true; }
  // The pool must have ended.
  void fail_now(const Error& why);

 private:
  struct TreeAsk {
    std::uint32_t tensor = 0;
    std::uint64_t first = 0;
    std::uint32_t count = 0;
  };
  struct Tree {
    std::vector<Hash128> leaves;
    std::uint64_t left = 0;  // hashes that haven't come
  };
  struct Checked {
    std::size_t source = 0;
    LeafRange range = {};
    std::vector<Hash128> hashes = {};  // empty: the memory couldn't be read
    bool read = false;                 // from lent memory
  };

  std::optional<StateRoute> route_to(const Member& member) override { return context_.route_to(member); }
  void on_change() override { schedule(); }
  void on_tree(const SourceConnection::Ask& ask) override;
  void on_leaves(FetchSource& source, const SourceConnection::Ask& ask) override;
  void on_owed(const SourceConnection::Ask& ask) override;

  void want_trees();
  void want(std::vector<LeafRange> missing);
  void tick();
  // Once after whatever happens in this turn of the loop.
  void schedule();
  void pump();
  void fill(FetchSource& source);
  bool ask_tree(FetchSource& source);
  bool ask_leaves(FetchSource& source);
  void ask_what_it_has(FetchSource& source);
  void take_over(FetchSource& idle);
  // Asks for these leaves, or reads them from lent memory.
  void fetch(FetchSource& source, const LeafRange& range);
  SourceConnection::Ask ask_for(const LeafRange& range) const;
  void work(Checked what, std::function<bool()> before);
  void checked(const Checked& result);
  bool done() const { return shadow_->unplanned() == 0 && shadow_->missing() == 0; }
  std::optional<std::string> hopeless() const;
  bool accuses() const;
  void finish_if_idle();
  OpResult result() const;
  StateShadow::Tensor& tensor(std::uint32_t at) const { return shadow_->tensors()[at]; }
  std::uint64_t bytes_of(std::uint32_t at) const { return shadow_->own(tensor(at)).bytes; }

  const Context context_;
  const OpId export_id_;
  const std::shared_ptr<StateShadow> shadow_;
  const std::uint32_t share_;
  const std::uint32_t shares_;
  Finished finished_;
  const EventLoop::Clock::time_point started_;
  const std::shared_ptr<std::atomic<bool>> stop_ = std::make_shared<std::atomic<bool>>(false);
  // What other threads and later turns bring finds this expired when the fetch is gone.
  const std::shared_ptr<StateFetch*> alive_;

  std::deque<TreeAsk> trees_wanted_;
  std::vector<Tree> trees_;  // parallel to the shadow's tensors
  LeafQueue queue_;
  std::vector<std::unique_ptr<FetchSource>> sources_;
  std::size_t working_ = 0;  // tasks at the pool
  std::size_t reading_ = 0;  // those of them that read lent memory
  bool scheduled_ = false;
  EventLoop::Timer ticker_;
  std::uint64_t steps_ = 0;     // trees and leaves verified
  std::uint64_t progress_ = 0;  // as it was at progress_at_
  EventLoop::Clock::time_point progress_at_;
  std::uint64_t read_bytes_ = 0;  // from lent memory
  std::optional<Error> error_;
};

}  // namespace pccl
