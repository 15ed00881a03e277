// One collective on this peer, as its epoch sees it: what it sends to whom, what it awaits, and how the caller's memory
// is brought back. An op does no I/O and knows no other op; which algorithm it follows is its own business. EpochOps
// does the rest: agreement on the call, the commit, aborts, freezes and verdicts. One thread.
//
// Others are named by their rank in the ring, in an op of two members too. An op may send to any rank that it is
// linked with, and that is one of its partners.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer_pool.h"
#include "collective/hosts.h"
#include "pccl/engine.h"
#include "transport/frame.h"

namespace pccl {

class Link;

class Op {
 public:
  struct Request {
    OpId id = 0;
    CollectiveCall call;
    Epoch ring_epoch = 0;  // in which it was called
    std::chrono::steady_clock::time_point posted;
  };

  // What an op may ask of its epoch, from within any of its own calls; from its constructor only for links.
  class Wire {
   public:
    // next_send may have something for that rank now.
    virtual void wake(std::uint32_t rank) = 0;
    // Comes to that rank's on_step once, in order. Only to a partner whose `ready` has come: until then it may not
    // have called the op.
    virtual void send_step(std::uint32_t rank, const StepBody& body) = 0;
    // Null while the link is lost.
    virtual Link* link(std::uint32_t rank) = 0;
    // work() is called once, in a later turn of the thread; the second time, not before that delay.
    virtual void schedule() = 0;
    virtual void schedule_after(std::chrono::milliseconds delay) = 0;

   protected:
    ~Wire() = default;
  };

  // Where this peer stands in the ring.
  struct Seat {
    std::uint32_t rank = 0;
    std::uint32_t ranks = 1;
    bool fully_linked = true;
    // The other member of an op of two; that of the root.
    std::uint32_t peer_rank = 0;

    std::uint32_t next() const { return (rank + 1) % ranks; }
    std::uint32_t previous() const { return (rank + ranks - 1) % ranks; }
    // Each once, without this one.
    std::vector<std::uint32_t> neighbours() const;
    std::vector<std::uint32_t> others() const;
  };
  struct Context {
    Seat seat;
    Wire& wire;
    BufferPool& pool;
    const Hosts& hosts;
  };

  Op(const Request& request, const Context& context, Algorithm algorithm);
  Op(const Op&) = delete;
  virtual ~Op() = default;

  OpId id() const { return request_.id; }
  const CollectiveCall& call() const { return request_.call; }
  const Descriptor& descriptor() const { return descriptor_; }

  // False when there is no memory for what it needs beside the caller's; then nothing else may be called.
  virtual bool prepare() { return true; }

  // Whose `ready` this op awaits, and who gets its own. If this rank has another as a partner, that one has this
  // rank; and the neighbours in the ring are partners in every op of all, so that members whose calls differ find out.
  const std::vector<std::uint32_t>& partners() const { return partners_; }
  // All members are partners, so each tells each that it is done, instead of in rounds.
  bool words_to_all() const { return words_to_all_; }

  // What the `ready` to that rank carries.
  virtual Payload ready_payload(std::uint32_t) { return nullptr; }
  // That partner has called, with an equal descriptor, and its `ready` carried this, or null. From now on next_send is
  // asked for it.
  enum class Answer : std::uint8_t {
    agreed,
    differs,  // the calls don't fit, as `difference` says: own, other
    wrong,    // no correct peer sends it
  };
  using Difference = std::pair<Descriptor, Descriptor>;
  virtual Answer on_ready(std::uint32_t, const Payload& payload, Difference&) {
    return payload ? Answer::wrong : Answer::agreed;
  }

  // A step of that partner's. False: no correct peer sends it.
  virtual bool on_step(std::uint32_t, const StepBody&) { return false; }

  enum class Turn : std::uint8_t {
    wanted,
    received,  // it has come before
    wrong,     // no correct peer sends it, or not yet
  };
  virtual Turn turn(std::uint32_t, const DataBody&) const { return Turn::wrong; }
  // Where the payload of a wanted chunk goes: to the caller's memory, or, null, anywhere. The chunk is over with
  // receive_end. Chunks may come in any order, and one twice at the same time: they go over several connections, and
  // some have to be sent again.
  virtual std::uint8_t* receive_begin(std::uint32_t, const DataBody&) { return nullptr; }
  virtual void receive_end(std::uint32_t, const DataBody&, const std::uint8_t*) {}

  struct Outgoing {
    DataBody body;
    const std::uint8_t* payload = nullptr;  // stays as it is until the other side has it
  };
  // The next chunk for that partner; nothing when there is none yet, or all are sent.
  virtual std::optional<Outgoing> next_send(std::uint32_t) { return std::nullopt; }
  // This one, which next_send gave, hasn't arrived.
  virtual void send_again(std::uint32_t, const DataBody&) {}

  // What it has scheduled: a piece of work of its own, short enough for all else to wait. An error ends the op, at the
  // others too: as peer_lost, which asks for another try, or non_finite_input, if it is that, and else as withdrawn.
  virtual std::optional<Error> work() { return std::nullopt; }

  // The whole result is here. It counts once every partner's `ready` has come.
  virtual bool done() const = 0;

  // The op has failed; nothing is called any more. All-reduces in place: the output is the input again.
  virtual void restore() {}

  virtual OpResult result(std::optional<Error> error) const;

 protected:
  // The constructor's job: partners, and whether the words that all are done go straight to all.
  void set_partners(std::vector<std::uint32_t> partners, bool words_to_all);

  const Seat& seat() const { return seat_; }
  Wire& wire() const { return wire_; }
  std::size_t element_bytes() const { return element_bytes_; }
  void count_sent(std::uint64_t bytes) { tx_bytes_ += bytes; }
  void count_received(std::uint64_t bytes) { rx_bytes_ += bytes; }

  BufferPool& pool_;

 private:
  const Request request_;
  const Seat seat_;
  Wire& wire_;
  const Descriptor descriptor_;
  const Algorithm algorithm_;
  const std::size_t element_bytes_;
  std::vector<std::uint32_t> partners_;
  bool words_to_all_ = false;
  std::uint64_t tx_bytes_ = 0;
  std::uint64_t rx_bytes_ = 0;
};

// What the members of this call must agree on.
Descriptor describe_call(const CollectiveCall& call);

}  // namespace pccl
