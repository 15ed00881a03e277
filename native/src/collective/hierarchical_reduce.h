// An all_reduce of members on several hosts, some of which share one. On each host they combine their contributions
// in each other's memory, as direct_reduce.h has it, but only the lowest rank, the leader, takes the whole; the leaders
// combine theirs on a ring among them; and the others take the result from their leader. So for H hosts a link between
// two of them carries 2 (H-1)/H arrays, however many members they have.
//
// In place: what a rank overwrites first is in its backup, so the ring keeps none, but where a leader is alone on its
// host and the ring is all there is to do.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "collective/direct_reduce.h"
#include "collective/ring_op.h"

namespace pccl {

class HierarchicalReduce final : public DirectReduce {
 public:
  HierarchicalReduce(const Request& request, const Context& context, std::unique_ptr<Op> links);

  Turn turn(std::uint32_t from, const DataBody& body) const override;
  std::uint8_t* receive_begin(std::uint32_t from, const DataBody& body) override;
  void receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) override;
  std::optional<Outgoing> next_send(std::uint32_t to) override;
  void send_again(std::uint32_t to, const DataBody& body) override;
  OpResult result(std::optional<Error> error) const override;

 private:
  // The leaders' ring: ranks in it are positions among the leaders.
  class LeaderWire final : public Wire {
   public:
    LeaderWire(Wire& wire, const std::vector<std::uint32_t>& leaders) : wire_(wire), leaders_(leaders) {}
    void wake(std::uint32_t position) override { wire_.wake(leaders_[position]); }
    void send_step(std::uint32_t position, const StepBody& body) override {
      wire_.send_step(leaders_[position], body);
    }
    Link* link(std::uint32_t position) override { return wire_.link(leaders_[position]); }
    void schedule() override { wire_.schedule(); }
    void schedule_after(std::chrono::milliseconds delay) override { wire_.schedule_after(delay); }

   private:
    Wire& wire_;
    const std::vector<std::uint32_t>& leaders_;
  };
  // A leader has its host's sum, and can receive; the result is in the leader's memory.
  static constexpr std::uint32_t leader_step = first_direct_step + 1;
  static constexpr std::uint32_t result_step = first_direct_step + 2;

  bool begin() override;
  bool on_word(std::uint32_t from, const StepBody& body) override;
  Piece copy_piece() override;
  bool complete() const override;
  void undo() override;

  std::optional<std::uint32_t> position_of(std::uint32_t rank) const;
  bool is_ring_running() const { return is_direct() && ring_runs_; }
  void run_ring();
  void tell_result();
  Piece take_result();

  const std::vector<std::uint32_t> leaders_;
  LeaderWire leader_wire_;
  std::unique_ptr<RingOp> ring_;  // of a leader
  bool ring_runs_ = false;        // from when this host's sum is there
  bool next_runs_ = false;        // the next leader's too
  bool result_is_there_ = false;  // in the leader's memory
  std::uint64_t result_taken_ = 0;
};

}  // namespace pccl
