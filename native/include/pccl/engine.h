// The native data plane's public face: an engine owns a listening port, the links to its neighbours in the ring
// and one I/O thread that moves and combines bytes. It knows nothing of Node, of gRPC or of who decides
// membership: whoever holds it tells it the views.
//
// Threads: every method may be called from any thread. Callbacks run on the engine's own threads, or within start() on
// its caller's; they must not block, throw, call back into the engine or hold the last reference to it: they only hand
// the event on.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pccl/quantization.h"

namespace pccl {

using PeerId = std::uint64_t;
using Epoch = std::uint64_t;
using OpId = std::uint64_t;

// f16 is IEEE 754's binary16, bf16 the upper half of a binary32. The numbers are part of the wire format.
enum class DType : std::uint8_t {
  f32 = 0,
  f64 = 1,
  i32 = 2,
  u8 = 3,
  i8 = 4,
  u16 = 5,
  i16 = 6,
  u32 = 7,
  u64 = 8,
  i64 = 9,
  f16 = 10,
  bf16 = 11,
};
enum class ReduceOp : std::uint8_t { sum = 0, avg = 1, max = 2, min = 3, prod = 4 };
// The numbers are part of the wire format.
enum class Collective : std::uint8_t {
  all_reduce = 0,
  reduce_scatter = 1,
  all_gather = 2,
  broadcast = 3,
  all_to_all = 4,
  gather = 5,
  scatter = 6,
  barrier = 7,
  send = 8,
  recv = 9,
};

// How an op was carried out, and over what.
enum class Algorithm : std::uint8_t { alone, ring, one_shot, chain, pairwise, direct, hierarchical, quantized };
enum class Transport : std::uint8_t { none, tcp, shm, mixed };

// Codes of packages/pccl-core/src/base/error-catalogue.ts; error_code_name gives the ERR_PCCL_* string.
enum class ErrorCode : std::uint8_t {
  invalid_argument,
  not_installed,        // no view yet
  buffer_in_use,        // overlaps a buffer of another op in flight
  tag_in_use,           // an op with this tag is in flight
  too_many_ops,         // limit of ops in flight reached
  descriptor_mismatch,  // members made different calls: another kind, count, dtype, reduction or root
  call_mismatch,        // a member waits in another call, so the op could never end
  peer_lost,            // aborted by a change of membership or links; retry
  cancelled,            // withdrawn by a member's caller
  closed,               // the engine was closed
  state_fetch_failed,   // no source is left that could give all that is wanted
  internal,             // a rule of the engine or of a peer's was broken: a bug
  io,                   // the system refused a port, or what an engine needs to begin
  out_of_memory,        // the system has no memory for what a call needs
  non_finite_input,     // a member's input has NaN or infinities, and the call's quantization doesn't pass them
};
const char* error_code_name(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;
  std::optional<PeerId> peer;
  std::optional<Epoch> epoch = {};  // of the view in which an op failed
};

struct Member {
  PeerId id = 0;
  // Empty and 0 for members that this peer is neither linked with nor a relay for.
  std::string host;
  std::uint16_t port = 0;
  // The member that forwards to this one; host and port are that one's then.
  std::optional<PeerId> via = {};
};

// Two members that can't reach each other, for which this peer forwards bytes.
struct RelayPair {
  PeerId a = 0;
  PeerId b = 0;
};

struct View {
  Epoch epoch = 0;       // of the ring: it rises when this ring changes, and names ops and links
  Epoch view_epoch = 0;  // of the world, as users see it
  PeerId self = 0;
  std::array<std::uint8_t, 16> key{};
  std::vector<Member> ring;  // in ring order, contains self
  std::uint32_t world_size = 0;
  // A link on which nothing came for this long is broken.
  std::uint32_t silence_ms = 5000;
  std::vector<RelayPair> relays = {};
  // Parallel to `ring`: members with equal numbers run on one host. Empty: each on one of its own.
  std::vector<std::uint32_t> hosts = {};
};

struct InstalledView {
  Epoch epoch = 0;       // View::view_epoch
  Epoch ring_epoch = 0;  // View::epoch
  PeerId self = 0;
  std::uint32_t rank = 0;
  std::uint32_t group_size = 0;
  std::uint32_t world_size = 0;
  std::vector<PeerId> members = {};  // in rank order
};

enum class OpState : std::uint8_t { not_done, done, committed, aborted };

// The name of an op within an epoch: seq counts those with the same tag, from and to. The last two are 0 but for an
// op of two members, send and recv.
struct OpKey {
  std::uint64_t tag = 0;
  std::uint32_t seq = 0;
  PeerId from = 0;
  PeerId to = 0;
  bool of_two() const { return from != to; }
  auto operator<=>(const OpKey&) const = default;
};

struct OpReport {
  OpKey key;
  OpState state = OpState::not_done;
};

struct Verdict {
  OpKey key;
  bool commit = false;
};

struct OpResult {
  std::optional<Error> error;
  std::uint32_t world_size = 0;  // members of the group that a collective ended in
  Epoch epoch = 0;               // of the view in which a collective ended
  std::uint64_t tx_bytes = 0;    // of this op's data on the links, headers included; of a commit: what was served
  std::uint64_t rx_bytes = 0;    // likewise; of a fetch: all that came, hashes included
  double seconds = 0;            // from the call on
  Algorithm algorithm = Algorithm::alone;
  Transport transport = Transport::none;
  std::vector<PeerId> sources = {};  // of a fetch: who gave anything
};
using OpCallback = std::function<void(OpId, const OpResult&)>;

// One member's part of a collective. Rank order is the order of the ring; N is the group's size. Buffers are aligned
// to an element, and don't overlap but where it says so; `send` is never written out of place. What a failed op leaves
// in a buffer that it receives into is anything, but for an all_reduce in place: there the buffer is as before the
// call, bit for bit.
//
//   all_reduce      send and recv of equal length; the same memory: in place
//   reduce_scatter  send: N blocks as long as recv, which gets this rank's block of the result
//   all_gather      recv: N blocks as long as send; send may be this rank's block of recv
//   broadcast       recv, at the root too, where it is only read; `peer` is the root
//   all_to_all      send: a block for each rank, recv: one from each. Equal blocks, unless counts per rank say
//                   otherwise, which may be 0; what one member sends is what the other one receives
//   gather          send; at the root also recv, N blocks as long
//   scatter         recv; at the root also send, N blocks as long
//   barrier         no buffer
//   send, recv      one buffer, of the same length at both; `peer` is the other member
//
// Integers: sum and prod wrap around; avg divides the sum, wrapped around, and rounds towards zero. f16 and bf16 are
// combined in f32, and rounded to nearest, ties to even, each time. A NaN in any contribution gives NaN, for max and
// min too; -0 is less than +0.
struct CollectiveCall {
  Collective kind = Collective::all_reduce;
  const void* send = nullptr;
  std::uint64_t send_count = 0;  // elements
  void* recv = nullptr;
  std::uint64_t recv_count = 0;
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;  // of all_reduce and reduce_scatter
  std::uint64_t tag = 0;
  PeerId peer = 0;
  // Of all_reduce and reduce_scatter of f32, but for prod, in groups of up to 16.
  Quantization quantization = {};
  // The ring that the call was shaped for; 0: the one that is installed when it is called.
  Epoch ring_epoch = 0;
  // The buffers lie in huge pages, so that peers on this host read them cheaply.
  bool in_huge_pages = false;
  // Of all_to_all: elements per rank, both or none.
  std::vector<std::uint64_t> send_counts = {};
  std::vector<std::uint64_t> recv_counts = {};
};

using Hash128 = std::array<std::uint8_t, 16>;  // XXH3-128, canonical byte order

struct ExportTensor {
  std::string name;
  void* data = nullptr;  // written by commit_state alone
  std::uint64_t bytes = 0;
};

// A tensor of an export, and what it is to become: the root of a hash tree (docs/protocol.md, shared state).
struct StateTarget {
  std::uint32_t tensor = 0;
  Hash128 root{};
};

// A member that exports what is wanted: all of it, or as much as it has fetched so far itself.
struct StateSource {
  Member member;
  bool complete = true;
};

struct StateFetchCall {
  OpId export_id = 0;
  std::vector<StateTarget> targets;  // each tensor once
  std::vector<StateSource> sources;
  // Of `shares` members that fetch the same at once this is number `share`: each begins somewhere else, so that they
  // can give each other what they have.
  std::uint32_t share = 0;
  std::uint32_t shares = 1;
};

struct LinkFailure {
  PeerId peer = 0;
  std::string reason;
};

// An op that the members `missing` haven't called yet, a second after this peer has. They are some of those that
// haven't: its neighbours, or all that the op waits for.
struct StalledOp {
  Epoch epoch = 0;  // of the ring
  OpKey key;
  std::vector<PeerId> missing;
};

// Of the peer that probes.
enum class ProbeDirection : std::uint8_t { send, receive };

// What the path from one peer to another carries.
struct ProbeResult {
  std::string error = {};  // why there is nothing to tell; empty: there is
  double bytes_per_second = 0;
  double round_trip_seconds = 0;
  std::uint64_t bytes = 0;  // streamed to find out
  double seconds = 0;       // that it took
};

// What the control side hears. Epochs are those of the ring.
struct ControlCallbacks {
  // Empty: every link of the view is up.
  std::function<void(Epoch, const std::vector<LinkFailure>&)> prepared = {};
  // A link of the installed epoch broke and couldn't be restored; once per peer and epoch. Ops that need it stay
  // where they are.
  std::function<void(Epoch, PeerId, const std::string& reason)> link_lost = {};
  // Once per op.
  std::function<void(const StalledOp&)> stalled = {};
  // The end of a probe, within seconds.
  std::function<void(std::uint64_t id, const ProbeResult&)> probed = {};
};

// What links to members on the same host are made of.
enum class TransportMode : std::uint8_t {
  automatic,  // shared memory; TCP where that can't be had
  shm,        // shared memory, and links to other hosts fail
  tcp,
};

struct EngineOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  // TCP connections that make up a link over TCP, 1 … 64. Of two peers that want different numbers both use the larger
  // one. 0: as many as the link's throughput asks for.
  std::uint32_t connections_per_peer = 0;
  // Of TCP, by the kernel's name. Empty: the system's default. invalid_argument where it can't be had.
  std::string congestion_control = {};
  // Collectives in flight at once, 1 … 256.
  std::uint32_t ops_in_flight_max = 16;
  TransportMode transport = TransportMode::automatic;
};

class Engine {
 public:
  // Binds and starts the thread. Throws EngineError (code io or invalid_argument).
  static std::shared_ptr<Engine> create(const EngineOptions& options);
  virtual ~Engine() = default;

  virtual std::uint16_t port() const = 0;
  // Equal for engines that can share memory: those of one boot of one machine, in one network namespace. 32 hex
  // digits; empty for an engine that uses TCP alone, because it is to or because the system leaves it no choice.
  virtual const std::string& host_id() const = 0;
  virtual std::optional<InstalledView> view() const = 0;

  // The calls that return an id throw EngineError on bad input, before anything changes; otherwise the callback is
  // called exactly once, also when the engine closes. Memory must stay valid and unmoved until then, and no other
  // call in flight may use it (buffer_in_use).

  // Starts in the installed epoch or, between prepare and install, in the next one. But where the ranks say how long
  // the buffers are, or what is whose (reduce_scatter, all_gather, all_to_all, gather, scatter), only in the ring that
  // the call was shaped for: if that is over, it is refused with peer_lost, and if that ends before the op begins, it
  // fails so.
  //
  // Members match their calls by tag and by order within the tag. Of collectives one per tag can be in flight; of send
  // and recv, which match by tag, sender and receiver, any number. In groups of more than 16, whose members aren't all
  // linked, all_to_all, gather and scatter are refused, and send and recv between members without a link.
  virtual OpId start(const CollectiveCall& call, OpCallback callback) = 0;
  // Withdraws an op that this peer hasn't finished: every member's callback gets `cancelled`. False when it is too
  // late, or `id` is no collective in flight.
  virtual bool cancel(OpId id) = 0;

  // Shared state, in three steps. The memory may be read meanwhile, also by other exports, but not written: what
  // changed nevertheless is found out when somebody fetches it.
  //
  // 1. Hashes the tensors on background threads, then calls back; from then on peers of the view can fetch them, until
  // commit_state or release_state.
  virtual OpId export_state(std::vector<ExportTensor> tensors, OpCallback callback) = 0;
  // The roots of the tensors' hash trees, in order. Throws invalid_argument before the hashing has ended.
  virtual std::vector<Hash128> hashes(OpId export_id) const = 0;
  // 2. Fetches what of the targets differs from the export, from all sources at once, into memory of the engine's own,
  // and verifies it; the tensors don't change. Once per export. It ends with state_fetch_failed when no source is left
  // that could give the rest; what has come is kept for the next fetch with the same names and sizes. Throws
  // not_installed before there is a view.
  virtual OpId fetch_state(StateFetchCall call, OpCallback callback) = 0;
  // 3. Ends the export, and writes what was fetched to its tensors, if that was complete. The memory is free when it
  // calls back. Throws invalid_argument while a fetch is in flight.
  virtual OpId commit_state(OpId export_id, OpCallback callback) = 0;
  // Or ends an export, its fetch and transfers from it without a change; when it returns nothing reads the memory, and
  // it is as before. Returns the bytes served.
  virtual std::uint64_t release_state(OpId export_id) = 0;
  // A tensor of the export that was found written to while others fetched it; empty: none.
  virtual std::string changed_tensor(OpId export_id) const = 0;

  // {} detaches: when it returns, no callback of before runs any more.
  virtual void set_control(ControlCallbacks callbacks) = 0;
  // Freezes the installed epoch and starts to build the links of `view`, whose epoch must be higher. Returns what is
  // known of the frozen epoch's ops: those in flight and the last 4096 that ended. `prepared` is called within the
  // timeout, unless another prepare comes first. Throws invalid_argument for a view that can't be.
  virtual std::vector<OpReport> prepare(const View& view, std::uint32_t timeout_ms) = 0;
  // Settles the frozen ops by their verdicts (none: aborted, peer_lost) and opens the prepared epoch. A link that
  // broke since `prepared` is told by link_lost. Throws invalid_argument when `epoch` isn't the prepared one.
  virtual void install(Epoch epoch, const std::vector<Verdict>& verdicts) = 0;
  // The world has changed and this ring hasn't: what view() says from now on. Throws invalid_argument before the
  // first install and for an older epoch.
  virtual void set_world(Epoch view_epoch, std::uint32_t world_size) = 0;
  // If this op is in flight here, in the open epoch, and waits for `peer`, which still hasn't called it, aborts it for
  // all members with call_mismatch.
  virtual bool abort_if_missing(Epoch epoch, const OpKey& key, PeerId peer) = 0;

  // Measures the path to, or from, `target`, another member of the installed view, over connections of its own; `probed`
  // follows. Throws invalid_argument for a member without host or port and for an `id` that is under way, not_installed before
  // the first view.
  virtual void probe(std::uint64_t id, const Member& target, ProbeDirection direction) = 0;

  // Ends every op (code closed, buffers restored), links, listener and threads; returns when all are gone and no
  // callback will run any more. Idempotent.
  virtual void close() = 0;
};

class EngineError : public std::exception {
 public:
  explicit EngineError(Error error) : error_(std::move(error)) {}
  const char* what() const noexcept override { return error_.message.c_str(); }
  const Error& error() const { return error_; }

 private:
  Error error_;
};

}  // namespace pccl
