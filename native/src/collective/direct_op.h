// A collective in which the members of one host read each other's memory, where they can: each lends the others its
// buffers, takes what it needs from theirs, and nothing goes over their links but a few words. lent_memory.h has what
// makes that safe. Where some member may not read another one of its host, all take the way over the links instead,
// as another op within this one. They take it as well where a member's memory is dear to read, because it isn't in
// huge pages, and there is nothing to be won but speed.
//
// Every `ready` carries where its sender's memory is and whether it would have it read; so whoever has all of them
// knows which way everybody takes.
//
// The copying goes in pieces of limits::direct_piece_bytes, between which the thread does what else there is to do.
// Memory: one such piece, and what a subclass says.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "transport/lent_memory.h"
#include "collective/op.h"

namespace pccl {

class DirectOp : public Op {
 public:
  Payload ready_payload(std::uint32_t to) override;
  Answer on_ready(std::uint32_t from, const Payload& payload, Difference& difference) override;
  bool on_step(std::uint32_t from, const StepBody& body) override;
  std::optional<Error> work() override;
  bool done() const override;
  void restore() override;
  OpResult result(std::optional<Error> error) const override;

  // Of the way over the links.
  Turn turn(std::uint32_t from, const DataBody& body) const override;
  std::uint8_t* receive_begin(std::uint32_t from, const DataBody& body) override;
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;

 protected:
  // `mates`: the ranks on this host, whose memory is read. `links`: what is done when not everybody can read its own.
  DirectOp(const Request& request, const Context& context, Algorithm algorithm,
           const std::vector<std::uint32_t>& mates, std::unique_ptr<Op> links);

  bool is_direct() const { return way_ == Way::direct; }

  // Where that rank finds what it reads.
  struct Offer {
    const void* send = nullptr;
    const void* recv = nullptr;
  };
  virtual Offer offer(std::uint32_t to) const = 0;

  // All are agreed to read each other; from now on copy_piece is called. False: there is no memory for that.
  virtual bool begin() { return true; }
  // Steps from here on are words of the direct way; those before belong to the way over the links.
  static constexpr std::uint32_t first_direct_step = 1 << 16;
  // Such a word of that rank's, perhaps before begin(). False: no correct peer sends it.
  virtual bool on_word(std::uint32_t, const StepBody&) { return false; }
  // Does the next piece of the work. `idle`: there is none, for now or any more; `failed`: memory couldn't be read.
  enum class Piece : std::uint8_t { copied, idle, failed };
  virtual Piece copy_piece() = 0;
  virtual bool complete() const = 0;
  virtual void undo() {}

  // The others' memory.
  struct Partner {
    std::uint32_t rank = 0;
    pid_t process = 0;
    bool agrees = false;
    bool is_ready = false;
    LentMemory memory;
  };
  const Partner& partner(std::uint32_t rank) const;
  // Copies from the other's memory into this process's, and counts it.
  bool read(const Partner& from, std::uint64_t address, void* to, std::size_t bytes);
  // The op is to end because the system has no memory for it.
  void fail_for_memory();

 private:
  enum class Way : std::uint8_t { open, direct, links };
  void decide();
  Error fail_for_good();
  void take_links();

  const std::unique_ptr<Op> links_;
  std::vector<Partner> others_;
  MemoryLoan loan_;
  bool agrees_ = true;  // to the direct way
  Way way_ = Way::open;
  bool begun_ = false;      // of the direct way
  bool no_memory_ = false;  // for the chosen way
  std::optional<std::uint32_t> unreadable_;  // whose memory couldn't be read
  std::chrono::steady_clock::time_point unreadable_since_;
};

}  // namespace pccl
