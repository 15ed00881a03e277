// What a lane's bytes go through: an ordered stream in both directions between two peers. Non-blocking, one thread.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/unique_fd.h"
#include "transport/event_loop.h"
#include "transport/path.h"
#include "transport/shm_segment.h"

namespace pccl {

class Channel {
 public:
  class Handler {
   public:
    // A read may give something, the end too; or, after wait_for_room(), a write may.
    virtual void on_channel(bool readable, bool writable) = 0;

   protected:
    ~Handler() = default;
  };

  virtual ~Channel() = default;
  Channel(const Channel&) = delete;

  // False: the system refuses to watch it.
  virtual bool start(EventLoop& loop, Handler& handler) = 0;
  // Both as readv and writev: the bytes that went, read's 0 at the end, or -1 with an errno. EPROTO: the peer has done
  // what no correct peer does.
  virtual ssize_t read(std::span<const iovec> into) = 0;
  virtual ssize_t write(std::span<const iovec> from) = 0;
  // Whether the handler is to hear that a write may give something.
  virtual void wait_for_room(bool wait) = 0;
  // Of TCP; nothing can be said of shared memory.
  struct Condition {
    std::chrono::microseconds round_trip{};
    bool same_machine = false;
    std::uint64_t acknowledged_bytes = 0;  // by the other host's system, since the connection was made
  };
  virtual std::optional<Condition> condition() const = 0;
  // After this long without a sign of life from the other host the connection may end.
  virtual void set_silence(std::chrono::milliseconds silence) = 0;
  // The handler hears nothing any more, and the other side finds the end.
  virtual void close() = 0;

  virtual Path path() const = 0;
  // The process at the other end, if each of the two can read the other's memory (process_vm_readv).
  virtual std::optional<pid_t> readable_process() const = 0;
  // Reading it has failed: from now on there is none, and the other side hears so too.
  virtual void give_up_reading() = 0;

 protected:
  Channel() = default;
};

// What a handshake ends with.
struct Connection {
  UniqueFd fd;
  std::unique_ptr<ShmSegment> segment = nullptr;  // null: TCP

  Path path() const { return segment ? Path::shm : Path::tcp; }
};

std::unique_ptr<Channel> open_channel(Connection connection);

}  // namespace pccl
