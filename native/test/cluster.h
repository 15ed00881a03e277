// Several engines in this process, linked over loopback or, when PCCL_TEST_TRANSPORT says shm, through shared memory, and a stand-in for the coordinator: it makes views, and
// decides over ops by the rules of docs/protocol.md.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pccl/engine.h"

namespace pccl::test {

// The values that a callback gives, most often one, awaited with a generous deadline.
template <typename T>
class Awaited {
 public:
  void set(T value) const {
    const std::lock_guard lock(state_->mutex);
    state_->values.push_back(std::move(value));
    state_->changed.notify_all();
  }
  // Throws when it doesn't come.
  T get() const { return get(1).front(); }
  // Waits for that many values.
  std::vector<T> get(std::size_t count) const {
    std::unique_lock lock(state_->mutex);
    if (!state_->changed.wait_for(lock, std::chrono::seconds(60), [&] { return state_->values.size() >= count; })) {
      throw std::runtime_error("nothing came within a minute");
    }
    return state_->values;
  }
  std::size_t count() const {
    const std::lock_guard lock(state_->mutex);
    return state_->values.size();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<T> values;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

using PendingOp = std::pair<OpId, Awaited<OpResult>>;

// The calls that most tests make, in short.
struct AllReduce {
  const void* send = nullptr;
  void* recv = nullptr;
  std::uint64_t count = 0;
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;
  std::uint64_t tag = 0;

  CollectiveCall call() const {
    return {.send = send, .send_count = count, .recv = recv, .recv_count = count, .dtype = dtype, .op = op, .tag = tag};
  }
};

struct Lost {
  Epoch epoch = 0;
  PeerId peer = 0;
  std::string reason;
};

struct Peer {
  PeerId id = 0;
  Awaited<Lost> lost;
  Awaited<StalledOp> stalled;
  std::mutex mutex;
  std::map<Epoch, Awaited<std::vector<LinkFailure>>> prepared;
  std::map<std::uint64_t, Awaited<ProbeResult>> probed;
  std::shared_ptr<Engine> engine;  // goes first: its callbacks use the rest

  Member member() const { return {id, "127.0.0.1", engine->port()}; }
  Awaited<std::vector<LinkFailure>> prepared_in(Epoch epoch);
  PendingOp start(const CollectiveCall& call);
  PendingOp all_reduce(const AllReduce& call) { return start(call.call()); }
  PendingOp export_state(std::vector<ExportTensor> tensors);
  PendingOp fetch_state(StateFetchCall call);
  PendingOp commit_state(OpId export_id);
  Awaited<ProbeResult> probe(std::uint64_t probe_id, const Member& target,
                             ProbeDirection direction = ProbeDirection::send);
};

// What the engines of a Cluster use, unless it says otherwise.
TransportMode test_transport();

class Cluster {
 public:
  // Changes what a peer's view says, before it gets it.
  using Edit = std::function<void(View&)>;

  // Engines with ids 1 … peers, in one installed ring. `lanes`: connections per peer of each.
  explicit Cluster(std::size_t peers, std::vector<std::uint32_t> lanes = {}, const Edit& edit = nullptr,
                   TransportMode transport = test_transport());

  Peer& operator[](std::size_t rank) { return *peers_[rank]; }
  std::size_t size() const { return peers_.size(); }
  Epoch epoch() const { return epoch_; }

  View view_for(const Peer& peer) const;
  // A new engine at the end of the next view's ring.
  Peer& add();
  // Ends the engine at `rank`; the others hear nothing but their broken links.
  void kill(std::size_t rank);

  // From the next view on.
  void set_edit(const Edit& edit) { edit_ = edit; }

  // Prepare, verdicts, install: as the coordinator does.
  void next_view();
  // Its steps, for tests that look in between.
  std::vector<std::vector<OpReport>> prepare();
  void await_prepared();
  static std::vector<Verdict> decide(const std::vector<std::vector<OpReport>>& reports);
  void install(const std::vector<Verdict>& verdicts);

 private:
  std::unique_ptr<Peer> make_peer(std::uint32_t lanes);

  const TransportMode transport_;
  PeerId next_id_ = 1;
  Epoch epoch_ = 0;
  Edit edit_;
  std::vector<std::unique_ptr<Peer>> peers_;
};

inline constexpr std::array<std::uint8_t, 16> test_key = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

}  // namespace pccl::test
