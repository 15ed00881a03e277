// The memory of a lane between two processes of one host: a page or two of positions and two rings. The side that
// dials makes it and passes its descriptor with the Hello; it can't be made smaller any more, and all of its memory
// is there, so that no access of either side can fail.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "transport/shm_ring.h"

namespace pccl {

class ShmSegment {
 public:
  // Null: the system refuses, `error` says why.
  static std::unique_ptr<ShmSegment> create(std::string& error);
  // From the descriptor that the other side has passed, which isn't believed to be what it should be.
  static std::unique_ptr<ShmSegment> adopt(UniqueFd descriptor, std::string& error);
  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;

  // Of the side that made it, until it has been passed.
  int descriptor() const { return descriptor_.get(); }
  void forget_descriptor() { descriptor_.reset(); }

  ShmWriter writer();
  ShmReader reader();
  ShmSide& own();
  ShmSide& other();

  // Tries to read the other side's token from its process, and tells it what came of it. 0: the process has no id
  // that this one could know.
  void try_to_read(pid_t process);
  // What try_to_read had, if both sides had success. The side that has passed the descriptor knows it with the
  // Welcome, the other one with the first frame.
  std::optional<pid_t> readable_process() const;
  // It had success once, and has none any more.
  void give_up_reading();

 private:
  struct Layout;
  enum class Role : std::uint8_t { dialled, accepted };

  ShmSegment(Layout* layout, Role role);
  static Layout* map(int descriptor, std::string& error);

  Layout* const layout_;
  const Role role_;
  UniqueFd descriptor_;
  // In this process's own memory, where the other one looks for it.
  std::array<std::uint64_t, 2> token_;
  std::optional<pid_t> process_;
};

}  // namespace pccl
