// The native data plane's public face: an engine owns a listening port, the links to its neighbours in the ring
// and one I/O thread that moves and combines bytes. It knows nothing of Node, of gRPC or of who decides
// membership: whoever holds it tells it the views.
//
// Threads: every method may be called from any thread. Callbacks run on the engine's own threads and must not
// block nor call back into the engine, except to hand the event on.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pccl {

using PeerId = std::uint64_t;
using Epoch = std::uint64_t;
using OpId = std::uint64_t;

enum class DType : std::uint8_t { f32 = 0, f64 = 1, i32 = 2 };
enum class ReduceOp : std::uint8_t { sum = 0, avg = 1, max = 2, min = 3 };

// Codes of the catalogue in packages/pccl-core/src/base/errors.ts; error_code_name gives the ERR_PCCL_* string.
enum class ErrorCode : std::uint8_t {
  invalid_argument,
  not_installed,         // no view yet
  buffer_in_use,         // overlaps a buffer of another op in flight
  tag_in_use,            // an op with this tag is in flight
  too_many_ops,          // limit of ops in flight reached
  descriptor_mismatch,   // members called with different count, dtype or op
  peer_lost,             // aborted by a change of membership or links; retry
  cancelled,             // withdrawn by a member's caller
  closed,                // the engine was closed
  state_fetch_failed,    // the source is gone, or its bytes don't have the announced hash
  internal,              // a rule of the engine or of a peer's was broken: a bug
  io,                    // the system refused (listen, memory)
};
const char* error_code_name(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;
  std::optional<PeerId> peer;
};

struct Member {
  PeerId id = 0;
  std::string host;
  std::uint16_t port = 0;
};

struct View {
  Epoch epoch = 0;
  PeerId self = 0;
  std::array<std::uint8_t, 16> key{};
  std::vector<Member> ring;  // in ring order, contains self
  std::uint32_t world_size = 0;
};

struct InstalledView {
  Epoch epoch = 0;
  PeerId self = 0;
  std::uint32_t rank = 0;
  std::uint32_t group_size = 0;
  std::uint32_t world_size = 0;
};

enum class OpState : std::uint8_t { not_done, done, committed, aborted };

struct OpReport {
  std::uint64_t tag = 0;
  std::uint32_t seq = 0;
  OpState state = OpState::not_done;
};

struct Verdict {
  std::uint64_t tag = 0;
  std::uint32_t seq = 0;
  bool commit = false;
};

struct OpResult {
  std::optional<Error> error;
  std::uint32_t world_size = 0;
  std::uint64_t tx_bytes = 0;
  std::uint64_t rx_bytes = 0;
  double seconds = 0;
};
using OpCallback = std::function<void(OpId, const OpResult&)>;

struct AllReduce {
  const void* send = nullptr;
  void* recv = nullptr;  // == send: in place
  std::uint64_t count = 0;
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;
  std::uint64_t tag = 0;
};

using Hash128 = std::array<std::uint8_t, 16>;  // XXH3-128, canonical byte order

struct ExportTensor {
  std::string name;
  const void* data = nullptr;
  std::uint64_t bytes = 0;
};

struct FetchTensor {
  std::string name;
  Hash128 hash{};
  void* into = nullptr;
  std::uint64_t bytes = 0;
};

struct LinkFailure {
  PeerId peer = 0;
  std::string reason;
};

// What the control side hears. Set once, before the first prepare.
struct ControlCallbacks {
  std::function<void(Epoch, const std::vector<LinkFailure>&)> prepared;
  std::function<void(Epoch, PeerId, const std::string& reason)> link_lost;
};

struct EngineOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
};

class Engine {
 public:
  // Binds and starts the thread. Throws EngineError (code io or invalid_argument).
  static std::shared_ptr<Engine> create(const EngineOptions& options);
  virtual ~Engine() = default;

  virtual std::uint16_t port() const = 0;
  virtual std::optional<InstalledView> view() const = 0;

  // Starting calls throw EngineError on bad input, before anything changes; otherwise the callback is called
  // exactly once, also when the engine closes. Memory must stay valid and unmoved until then.
  virtual OpId all_reduce(const AllReduce& call, OpCallback callback) = 0;
  virtual bool cancel(OpId id) = 0;

  virtual OpId export_state(std::vector<ExportTensor> tensors, OpCallback callback) = 0;
  virtual std::vector<Hash128> hashes(OpId export_id) const = 0;
  virtual std::uint64_t release_state(OpId export_id) = 0;
  virtual OpId fetch_state(const Member& source, std::vector<FetchTensor> tensors, OpCallback callback) = 0;

  virtual void set_control(ControlCallbacks callbacks) = 0;  // {} detaches
  virtual std::vector<OpReport> prepare(const View& view, std::uint32_t timeout_ms) = 0;
  virtual void install(Epoch epoch, const std::vector<Verdict>& verdicts) = 0;

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
