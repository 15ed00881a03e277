// One source of a fetch: how it is reached, what it has, how fast it is and what it still owes. I/O thread only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pccl/engine.h"
#include "state/leaf_queue.h"
#include "state/source_connection.h"
#include "transport/lent_memory.h"

namespace pccl {

// How a member is reached now.
struct StateRoute {
  Hello hello;
  std::string host;
  std::uint16_t port = 0;
  std::string congestion_control = {};
  // On this host: a process whose memory this one can read.
  std::optional<pid_t> process;
};

class FetchSource final : SourceConnection::Owner {
 public:
  using Clock = EventLoop::Clock;

  // The owner may not destroy the source, nor close it, from there.
  class Owner {
   public:
    // Nothing: it is no member any more.
    virtual std::optional<StateRoute> route_to(const Member& member) = 0;
    // The source can be asked for more, or has been lost.
    virtual void on_change() = 0;
    virtual void on_tree(const SourceConnection::Ask& ask) = 0;
    virtual void on_leaves(FetchSource& source, const SourceConnection::Ask& ask) = 0;
    // What was asked for won't come from this source.
    virtual void on_owed(const SourceConnection::Ask& ask) = 0;

   protected:
    ~Owner() = default;
  };

  FetchSource(EventLoop& loop, Resolver& resolver, Owner& owner, const StateSource& of, std::size_t tensors);

  PeerId id() const { return of_.member.id; }
  bool open() const { return connection_.is_open() && !lost_; }
  // For good.
  bool lost() const { return lost_; }
  // It has, or had, everything.
  bool complete() const { return of_.complete; }
  // What it waits for, or why it was lost.
  const std::string& state() const { return state_; }
  std::uint64_t rx_bytes() const { return connection_.rx_bytes(); }
  bool gave() const { return gave_; }
  void note_given() { gave_ = true; }

  bool may_know(std::uint32_t tensor) const { return !unknown_[tensor]; }
  bool has(std::uint32_t tensor, std::uint64_t leaf) const;
  // Bytes that can be asked for now, and leaves that one question should be for.
  std::uint64_t room() const { return window_ > owed_bytes_ ? window_ - owed_bytes_ : 0; }
  std::uint64_t batch_leaves() const;
  bool owes() const { return owed_bytes_ > 0; }
  // How long all that it owes will take it.
  double owed_seconds(Clock::time_point now) const;
  std::optional<pid_t> process() const { return process_; }
  void forget_process() { process_.reset(); }
  const std::optional<LentMemory>& lent(std::uint32_t tensor) const;

  void ask(const SourceConnection::Ask& ask);
  // Whether it is time to ask again what it has got; if so it is taken to be asked.
  bool take_poll(Clock::time_point now);
  // Once per tensor: where that of this question lies.
  void ask_to_lend(const SourceConnection::Ask& about);
  void tell(const state_wire::Request& request) { connection_.tell(request); }
  // That it gave wrong bytes, as the question says, and is lost by that.
  void accuse(const SourceConnection::Ask& about, const std::string& why);
  // It may not have heard yet what it is accused of.
  bool is_accused() const;
  // Takes back the question that would be answered last and satisfies `wanted`.
  std::optional<SourceConnection::Ask> take_back(const std::function<bool(const SourceConnection::Ask&)>& wanted);
  // It can't be trusted any more.
  void lose(const std::string& why);
  // Called every state_poll_interval: dials again, and gives up what doesn't answer.
  void tick(Clock::time_point now);

 private:
  void on_opened() override;
  void on_answer(const SourceConnection::Ask& ask, bool found) override;
  void on_broken(const std::string& reason) override;
  void dial();
  void fail(const std::string& reason);
  void arrived(std::uint64_t bytes);

  const StateSource of_;
  Owner& owner_;
  SourceConnection connection_;
  bool lost_ = false;
  std::string state_;
  std::uint32_t failures_ = 0;  // since the last answer
  Clock::time_point dial_at_;
  std::uint64_t heard_bytes_ = 0;
  Clock::time_point heard_at_;
  bool gave_ = false;
  Clock::time_point polled_at_;

  std::vector<bool> unknown_;                            // by tensor
  std::map<std::uint32_t, std::vector<std::uint8_t>> have_;  // of a source that fetches: bits per leaf
  std::optional<pid_t> process_;
  struct Lent {
    std::array<std::uint8_t, state_wire::lend_bytes> bytes;
    std::optional<LentMemory> memory;
  };
  std::map<std::uint32_t, Lent> lent_;

  std::uint64_t owed_bytes_ = 0;
  std::uint64_t window_ = limits::state_window_bytes_min;
  // For the speed: what has come since when.
  std::uint64_t recent_bytes_ = 0;
  Clock::time_point recent_since_;
};

}  // namespace pccl
