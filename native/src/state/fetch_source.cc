#include "state/fetch_source.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/limits.h"

namespace pccl {
namespace {

using state_wire::Kind;
using Seconds = std::chrono::duration<double>;

// The window holds what comes in this time: more than a round trip, little enough to be done soon.
constexpr double window_seconds = 0.4;
// Nothing has come for longer than any round trip.
constexpr double silent_seconds = 0.5;
constexpr auto speed_interval = std::chrono::milliseconds(100);
// Questions that a window is made of.
constexpr std::uint64_t asks_per_window = 8;

}  // namespace

FetchSource::FetchSource(EventLoop& loop, Resolver& resolver, Owner& owner, const StateSource& of, std::size_t tensors)
    : of_(of), owner_(owner), connection_(loop, resolver, *this), unknown_(tensors) {
  dial();
}

void FetchSource::dial() {
  const auto route = owner_.route_to(of_.member);
  if (!route) return lose("it is no member of the group any more");
  process_ = route->process;
  state_ = "connecting";
  connection_.dial({.hello = route->hello,
                    .host = route->host,
                    .port = route->port,
                    .congestion_control = route->congestion_control,
                    .timeout = limits::dial_attempt_timeout});
}

bool FetchSource::has(std::uint32_t tensor, std::uint64_t leaf) const {
  if (of_.complete) return !unknown_[tensor];
  const auto found = have_.find(tensor);
  return found != have_.end() && leaf / 8 < found->second.size() && (found->second[leaf / 8] >> (leaf % 8) & 1) != 0;
}

std::uint64_t FetchSource::batch_leaves() const {
  return std::clamp<std::uint64_t>(window_ / asks_per_window / limits::state_leaf_bytes, 1,
                                   limits::state_request_leaves_max);
}

double FetchSource::owed_seconds(Clock::time_point now) const {
  const double seconds = Seconds(now - recent_since_).count();
  if (recent_bytes_ > 0) return static_cast<double>(owed_bytes_) * seconds / static_cast<double>(recent_bytes_);
  // It may still be on its way.
  return seconds < silent_seconds ? 0 : std::numeric_limits<double>::max();
}

const std::optional<LentMemory>& FetchSource::lent(std::uint32_t tensor) const {
  static const std::optional<LentMemory> nothing;
  const auto found = lent_.find(tensor);
  return found == lent_.end() ? nothing : found->second.memory;
}

void FetchSource::ask(const SourceConnection::Ask& ask) {
  SourceConnection::Ask asked = ask;
  // What a source says of itself is kept here.
  if (ask.request.kind == Kind::have) {
    std::vector<std::uint8_t>& bits = have_[ask.tensor];
    bits.resize((leaf_count(ask.request.bytes) + 7) / 8);
    asked.into = bits.data() + ask.request.first / 8;
  } else if (ask.request.kind == Kind::lend) {
    asked.into = lent_[ask.tensor].bytes.data();
  }
  if (owed_bytes_ == 0) {
    recent_since_ = heard_at_ = Clock::now();
    recent_bytes_ = 0;
  }
  owed_bytes_ += ask.request.answer_bytes();
  connection_.ask(asked);
}

bool FetchSource::take_poll(Clock::time_point now) {
  if (now - polled_at_ < limits::state_poll_interval) return false;
  polled_at_ = now;
  return true;
}

void FetchSource::ask_to_lend(const SourceConnection::Ask& about) {
  if (lent_.contains(about.tensor)) return;
  ask({.request = {Kind::lend, 0, 0, about.request.bytes, about.request.root}, .tensor = about.tensor});
}

std::optional<SourceConnection::Ask> FetchSource::take_back(
    const std::function<bool(const SourceConnection::Ask&)>& wanted) {
  const auto& asked = connection_.asked();
  for (std::size_t i = asked.size(); i-- > 0;) {
    if (asked[i].into == nullptr || !wanted(asked[i])) continue;
    const SourceConnection::Ask taken = asked[i];
    connection_.discard(i);
    return taken;
  }
  return std::nullopt;
}

void FetchSource::on_opened() {
  state_ = "connected";
  heard_at_ = Clock::now();
  owner_.on_change();
}

void FetchSource::on_answer(const SourceConnection::Ask& ask, bool found) {
  failures_ = 0;
  arrived(ask.request.answer_bytes());
  if (ask.into == nullptr) return owner_.on_change();
  switch (ask.request.kind) {
    case Kind::leaves:
      if (found) return owner_.on_tree(ask);
      unknown_[ask.tensor] = of_.complete;
      return owner_.on_owed(ask);
    case Kind::data:
      if (found) return owner_.on_leaves(*this, ask);
      unknown_[ask.tensor] = of_.complete;
      if (!of_.complete) std::fill(have_[ask.tensor].begin(), have_[ask.tensor].end(), std::uint8_t{0});
      return owner_.on_owed(ask);
    case Kind::lend: {
      Lent& lent = lent_[ask.tensor];
      const std::uint8_t* const bytes = lent.bytes.data();
      if (found) {
        lent.memory = {load_le<std::uint64_t>(bytes), 0, load_le<std::uint64_t>(bytes + 8),
                       load_le<std::uint64_t>(bytes + 16)};
      }
      return owner_.on_change();
    }
    case Kind::have:
    case Kind::stale:
    case Kind::read:
      return owner_.on_change();
  }
}

void FetchSource::arrived(std::uint64_t bytes) {
  owed_bytes_ -= bytes;
  recent_bytes_ += bytes;
  const auto now = Clock::now();
  const Seconds elapsed = now - recent_since_;
  if (elapsed < speed_interval) return;
  const double per_second = static_cast<double>(recent_bytes_) / elapsed.count();
  window_ = std::clamp(static_cast<std::uint64_t>(per_second * window_seconds), limits::state_window_bytes_min,
                       limits::state_window_bytes_max);
  recent_since_ = now;
  recent_bytes_ = 0;
}

void FetchSource::on_broken(const std::string& reason) {
  if (!lost_) return fail(reason);
  connection_.close();
  owner_.on_change();
}

// It is dialled again after a while, unless that was tried often enough.
void FetchSource::fail(const std::string& reason) {
  state_ = reason;
  for (const SourceConnection::Ask& ask : connection_.close()) {
    if (ask.into != nullptr) owner_.on_owed(ask);
  }
  owed_bytes_ = 0;
  have_.clear();
  lent_.clear();
  window_ = limits::state_window_bytes_min;
  if (++failures_ >= limits::state_source_attempts) {
    lost_ = true;
  } else {
    dial_at_ = Clock::now() + limits::state_source_pause_min * (1 << (failures_ - 1));
  }
  owner_.on_change();
}

void FetchSource::lose(const std::string& why) {
  lost_ = true;
  state_ = why;
  // The connection stays for what it is to be told.
  for (std::size_t i = 0; i < connection_.asked().size(); ++i) {
    const SourceConnection::Ask ask = connection_.asked()[i];
    if (ask.into == nullptr) continue;
    connection_.discard(i);
    owner_.on_owed(ask);
  }
  owner_.on_change();
}

void FetchSource::accuse(const SourceConnection::Ask& about, const std::string& why) {
  if (open()) connection_.ask(about);
  lose(why);
}

bool FetchSource::is_accused() const {
  const auto& asked = connection_.asked();
  return connection_.is_open() &&
         std::any_of(asked.begin(), asked.end(), [](const auto& ask) { return ask.request.kind == Kind::stale; });
}

void FetchSource::tick(Clock::time_point now) {
  if (lost_) return;
  if (!connection_.is_open()) {
    if (!connection_.is_dialling() && now >= dial_at_) dial();
    return;
  }
  if (connection_.rx_bytes() != heard_bytes_) {
    heard_bytes_ = connection_.rx_bytes();
    heard_at_ = now;
  }
  if (owed_bytes_ == 0 || now - heard_at_ < limits::state_progress_timeout) return;
  fail("it has sent nothing for " + std::to_string(std::chrono::milliseconds(limits::state_progress_timeout).count()) +
       " ms");
}

}  // namespace pccl
