#include "state/state_fetch.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "base/limits.h"
#include "hash/xxh3.h"

namespace pccl {
namespace {

using state_wire::Kind;
using state_wire::Request;

// Smaller tensors aren't worth asking where they lie.
constexpr std::uint64_t lent_bytes_min = 1024 * 1024;
// A source that would take longer than this for what it owes may lose it to an idle one.
constexpr double owed_seconds_max = 0.1;

}  // namespace

StateFetch::StateFetch(const Context& context, std::shared_ptr<StateShadow> shadow, const StateFetchCall& call,
                       Finished finished)
    : context_(context),
      export_id_(call.export_id),
      shadow_(std::move(shadow)),
      share_(call.share),
      shares_(call.shares),
      finished_(std::move(finished)),
      started_(EventLoop::Clock::now()),
      alive_(std::make_shared<StateFetch*>(this)),
      trees_(shadow_->tensors().size()),
      progress_at_(started_) {
  want_trees();
  for (const StateSource& source : call.sources) {
    FetchSource::Owner& owner = *this;
    sources_.push_back(std::make_unique<FetchSource>(context_.loop, context_.resolver, owner, source, trees_.size()));
  }
  schedule();
  tick();
}

// Beginning with this fetch's share of them.
void StateFetch::want_trees() {
  const auto count = static_cast<std::uint32_t>(trees_.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::uint32_t>((i + std::uint64_t{count} * share_ / shares_) % count);
    const std::uint64_t leaves = leaf_count(bytes_of(at));
    if (leaves == 1) {
      want(shadow_->plan_single(tensor(at)));
      continue;
    }
    trees_[at] = {std::vector<Hash128>(leaves), leaves};
    for (std::uint64_t first = 0; first < leaves; first += limits::state_request_hashes_max) {
      const auto some = std::min<std::uint64_t>(leaves - first, limits::state_request_hashes_max);
      trees_wanted_.push_back({at, first, static_cast<std::uint32_t>(some)});
    }
  }
}

// Beginning with this fetch's share of them, too.
void StateFetch::want(std::vector<LeafRange> missing) {
  std::uint64_t total = 0;
  for (const LeafRange& range : missing) total += range.count;
  std::uint64_t before = total * share_ / shares_;
  std::vector<LeafRange> later;
  for (const LeafRange& range : missing) {
    const std::uint64_t skipped = std::min(before, range.count);
    before -= skipped;
    if (skipped > 0) later.push_back({range.tensor, range.first, skipped});
    if (skipped < range.count) queue_.add({range.tensor, range.first + skipped, range.count - skipped});
  }
  for (const LeafRange& range : later) queue_.add(range);
}

void StateFetch::tick() {
  ticker_ = EventLoop::Timer(context_.loop, limits::state_poll_interval, [this] { tick(); });
  const auto now = EventLoop::Clock::now();
  // Those that fetch as well say all the time what they have, which needn't be anything.
  std::uint64_t progress = steps_;
  for (const auto& source : sources_) {
    source->tick(now);
    if (source->complete()) progress += source->rx_bytes();
  }
  if (progress != progress_ || working_ > 0) {
    progress_ = progress;
    progress_at_ = now;
  }
  schedule();
}

void StateFetch::schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  context_.loop.defer([wanted = std::weak_ptr<StateFetch*>(alive_)] {
    if (const auto fetch = wanted.lock()) (*fetch)->pump();
  });
}

void StateFetch::pump() {
  scheduled_ = false;
  if (!error_ && !done()) {
    for (const auto& source : sources_) {
      if (source->open()) fill(*source);
    }
    if (const auto why = hopeless()) {
      const std::optional<PeerId> peer = sources_.size() == 1 ? std::optional(sources_[0]->id()) : std::nullopt;
      error_ = Error{ErrorCode::state_fetch_failed, "fetch_state: " + *why, peer};
      *stop_ = true;
    }
  }
  finish_if_idle();
}

void StateFetch::fill(FetchSource& source) {
  while (source.room() > 0 && (ask_tree(source) || ask_leaves(source))) {
  }
  if (source.owes()) return;
  if (source.complete()) {
    take_over(source);
  } else {
    ask_what_it_has(source);
  }
}

bool StateFetch::ask_tree(FetchSource& source) {
  const auto wanted = std::find_if(trees_wanted_.begin(), trees_wanted_.end(),
                                   [&](const TreeAsk& tree) { return source.may_know(tree.tensor); });
  // Who fetches itself may have none yet, and is asked only when nobody else can be.
  if (wanted == trees_wanted_.end()) return false;
  const bool others = std::any_of(sources_.begin(), sources_.end(),
                                  [](const auto& other) { return other->complete() && !other->lost(); });
  if (!source.complete() && others) return false;
  const TreeAsk ask = *wanted;
  trees_wanted_.erase(wanted);
  Tree& tree = trees_[ask.tensor];
  source.ask({.request = {Kind::leaves, ask.count, ask.first, bytes_of(ask.tensor), tensor(ask.tensor).root},
              .tensor = ask.tensor,
              .into = tree.leaves[ask.first].data()});
  return true;
}

bool StateFetch::ask_leaves(FetchSource& source) {
  const bool reads = source.process().has_value();
  if (reads && reading_ >= 2 * context_.pool.threads_max()) return false;
  const std::uint64_t most = reads ? limits::state_request_leaves_max : source.batch_leaves();
  const auto range = queue_.take_of(
      most, [&source](std::uint32_t at, std::uint64_t leaf) { return source.has(at, leaf); });
  if (!range) return false;
  fetch(source, *range);
  return true;
}

SourceConnection::Ask StateFetch::ask_for(const LeafRange& range) const {
  const StateShadow::Tensor& of = tensor(range.tensor);
  return {.request = {Kind::data, static_cast<std::uint32_t>(range.count), range.first, bytes_of(range.tensor), of.root},
          .tensor = range.tensor,
          .into = shadow_->place(of, range.first)};
}

void StateFetch::fetch(FetchSource& source, const LeafRange& range) {
  const SourceConnection::Ask ask = ask_for(range);
  if (source.process() && ask.request.bytes >= lent_bytes_min) {
    if (const auto& lent = source.lent(range.tensor)) {
      ++reading_;
      const std::uint64_t bytes = ask.request.answer_bytes();
      const std::uint64_t address = lent->send + range.first * limits::state_leaf_bytes;
      const auto at = std::find_if(sources_.begin(), sources_.end(), [&](const auto& one) { return one.get() == &source; });
      return work({.source = static_cast<std::size_t>(at - sources_.begin()), .range = range, .read = true},
                  [process = *source.process(), memory = *lent, address, into = ask.into, bytes] {
                    return read_lent(process, memory, address, into, bytes);
                  });
    }
    source.ask_to_lend(ask);
  }
  source.ask(ask);
}

void StateFetch::ask_what_it_has(FetchSource& source) {
  if (queue_.ranges().empty() || !source.take_poll(EventLoop::Clock::now())) return;
  std::optional<std::uint32_t> last;
  for (const LeafRange& range : queue_.ranges()) {
    if (last == range.tensor) continue;
    last = range.tensor;
    const std::uint64_t leaves = leaf_count(bytes_of(range.tensor));
    for (std::uint64_t first = 0; first < leaves; first += limits::state_request_hashes_max) {
      const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(leaves - first, limits::state_request_hashes_max));
      if (source.room() == 0) return;
      source.ask({.request = {Kind::have, count, first, bytes_of(range.tensor), tensor(range.tensor).root},
                  .tensor = range.tensor});
    }
  }
}

// From the one who would be done last.
void StateFetch::take_over(FetchSource& idle) {
  const auto now = EventLoop::Clock::now();
  FetchSource* slowest = nullptr;
  for (const auto& source : sources_) {
    if (source.get() == &idle || !source->open() || source->owed_seconds(now) < owed_seconds_max) continue;
    if (slowest == nullptr || source->owed_seconds(now) > slowest->owed_seconds(now)) slowest = source.get();
  }
  if (slowest == nullptr || !slowest->owes()) return;
  const auto taken = slowest->take_back([&idle](const SourceConnection::Ask& ask) {
    if (ask.request.kind == Kind::leaves) return idle.may_know(ask.tensor);
    return ask.request.kind == Kind::data && idle.has(ask.tensor, ask.request.first);
  });
  if (taken) idle.ask(*taken);
}

void StateFetch::on_tree(const SourceConnection::Ask& ask) {
  Tree& tree = trees_[ask.tensor];
  tree.left -= ask.request.count;
  if (tree.left == 0) {
    std::vector<Hash128> leaves = std::exchange(tree.leaves, {});
    if (root_of(leaves) == tensor(ask.tensor).root) {
      ++steps_;
      want(shadow_->plan(tensor(ask.tensor), std::move(leaves)));
    } else {
      // Some source has lied, and nobody knows which one if there were several.
      error_ = Error{ErrorCode::state_fetch_failed,
                     "fetch_state: the leaves' hashes that came for tensor " + shadow_->own(tensor(ask.tensor)).name +
                         " don't give its hash " + to_hex(tensor(ask.tensor).root),
                     {}};
      *stop_ = true;
    }
  }
  schedule();
}

void StateFetch::on_leaves(FetchSource& source, const SourceConnection::Ask& ask) {
  const auto at = std::find_if(sources_.begin(), sources_.end(), [&](const auto& one) { return one.get() == &source; });
  work({.source = static_cast<std::size_t>(at - sources_.begin()),
        .range = {ask.tensor, ask.request.first, ask.request.count}},
       [] { return true; });
  schedule();
}

void StateFetch::on_owed(const SourceConnection::Ask& ask) {
  if (ask.request.kind == Kind::leaves) {
    trees_wanted_.push_front({ask.tensor, ask.request.first, ask.request.count});
  } else if (ask.request.kind == Kind::data) {
    queue_.give_back({ask.tensor, ask.request.first, ask.request.count});
  }
  schedule();
}

// Hashes leaves in their places on the pool's threads, after `before`, which may fill them and fail.
void StateFetch::work(Checked what, std::function<bool()> before) {
  ++working_;
  const StateShadow::Tensor& of = tensor(what.range.tensor);
  const std::uint8_t* const place = shadow_->place(of, what.range.first);
  context_.pool.post([&loop = context_.loop, wanted = std::weak_ptr<StateFetch*>(alive_), stop = stop_,
                      memory = shadow_->memory(), before = std::move(before), what = std::move(what), place,
                      bytes = bytes_of(what.range.tensor)]() mutable {
    if (!*stop && before()) {
      for (std::uint64_t i = 0; i < what.range.count; ++i) {
        what.hashes.push_back(xxh3_128(place + i * limits::state_leaf_bytes,
                                       leaves_bytes(bytes, what.range.first + i, 1)));
      }
    }
    loop.post([wanted, what = std::move(what)] {
      if (const auto fetch = wanted.lock()) (*fetch)->checked(what);
    });
  });
}

void StateFetch::checked(const Checked& result) {
  --working_;
  const LeafRange& range = result.range;
  FetchSource& source = *sources_[result.source];
  if (result.read) --reading_;
  if (result.hashes.empty()) {
    // From now on it is asked like any other.
    if (!*stop_) source.forget_process();
    queue_.give_back(range);
    return schedule();
  }
  StateShadow::Tensor& of = tensor(range.tensor);
  Request about = ask_for(range).request;
  if (result.read) {
    read_bytes_ += about.answer_bytes();
    about.kind = Kind::read;
    if (source.open()) source.tell(about);
  }
  for (std::uint64_t i = 0; i < range.count; ++i) {
    const std::uint64_t leaf = range.first + i;
    if (StateShadow::matches(of, leaf, result.hashes[i])) {
      shadow_->verified(of, leaf, result.hashes[i]);
      ++steps_;
      source.note_given();
      continue;
    }
    queue_.give_back({range.tensor, leaf, 1});
    if (source.lost()) continue;
    about.kind = Kind::stale;
    about.first = leaf;
    about.count = 1;
    source.accuse({.request = about, .tensor = range.tensor},
                  "it gave other bytes of tensor " + shadow_->own(of).name + " than their hash says");
  }
  schedule();
}

// Why nothing more will come.
std::optional<std::string> StateFetch::hopeless() const {
  // What is asked for next; every tensor that nobody knows gets there.
  const std::optional<std::uint32_t> next = !trees_wanted_.empty()     ? std::optional(trees_wanted_.front().tensor)
                                            : !queue_.ranges().empty() ? std::optional(queue_.ranges().front().tensor)
                                                                       : std::nullopt;
  const bool complete = std::any_of(sources_.begin(), sources_.end(), [&](const auto& source) {
    return source->complete() && !source->lost() && (!next || source->may_know(*next));
  });
  const bool partial = std::any_of(sources_.begin(), sources_.end(),
                                   [](const auto& source) { return !source->complete() && !source->lost(); });
  const auto patience = complete ? limits::state_progress_timeout : limits::state_orphan_timeout;
  const bool stuck = EventLoop::Clock::now() - progress_at_ > patience;
  if (working_ > 0 || ((complete || partial) && !stuck)) return std::nullopt;
  const std::uint64_t left = shadow_->missing();
  std::string why = std::to_string(left) + " leaves of " + std::to_string(limits::state_leaf_bytes / 1024) +
                    " KiB are missing, and ";
  why += sources_.empty() ? "there is no source" : "no source is left that could give them";
  for (const auto& source : sources_) {
    const bool ignorant = next && !source->lost() && !source->may_know(*next);
    why += "; peer " + std::to_string(source->id()) + ": " + (ignorant ? "it doesn't export the content" : source->state());
  }
  return why;
}

void StateFetch::cancel(const Error& why) {
  if (!error_) error_ = why;
  *stop_ = true;
  schedule();
}

OpResult StateFetch::result() const {
  const std::chrono::duration<double> time = EventLoop::Clock::now() - started_;
  OpResult result{.error = error_, .rx_bytes = read_bytes_, .seconds = time.count()};
  for (const auto& source : sources_) {
    result.rx_bytes += source->rx_bytes();
    if (source->gave()) result.sources.push_back(source->id());
  }
  return result;
}

// What a connection was told last is lost if it is closed before the other side has read it.
bool StateFetch::accuses() const {
  return EventLoop::Clock::now() - progress_at_ <= limits::state_orphan_timeout &&
         std::any_of(sources_.begin(), sources_.end(), [](const auto& source) { return source->is_accused(); });
}

void StateFetch::finish_if_idle() {
  if ((!error_ && !done()) || working_ > 0 || !finished_ || accuses()) return;
  const Finished finished = std::exchange(finished_, nullptr);
  finished(result());
}

void StateFetch::fail_now(const Error& why) {
  if (!finished_) return;
  error_ = Error{why.code, "fetch_state: " + why.message, why.peer};
  const Finished finished = std::exchange(finished_, nullptr);
  finished(result());
}

}  // namespace pccl
