#include "transport/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <cerrno>
#include <new>

#include "base/limits.h"
#include "transport/socket.h"

namespace pccl {

struct ShmSegment::Layout {
  std::array<ShmSide, 2> sides;  // by Role
  alignas(4096) std::array<std::array<std::uint8_t, limits::shm_ring_bytes>, 2> rings;  // by the writer's Role
};

std::unique_ptr<ShmSegment> ShmSegment::create(std::string& error) {
  const auto refused = [&](const char* what) {
    error = std::string("shared memory: ") + what + ": " + errno_text(errno);
    return nullptr;
  };
  UniqueFd descriptor(::memfd_create("pccl-lane", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!descriptor) return refused("memfd_create");
  // Reserved at once: without memory left a first touch would kill the process.
  if (const int code = ::posix_fallocate(descriptor.get(), 0, sizeof(Layout)); code != 0) {
    errno = code;
    return refused("no memory for a lane");
  }
  if (::fcntl(descriptor.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return refused("seal");
  Layout* const layout = map(descriptor.get(), error);
  if (layout == nullptr) return nullptr;
  new (layout) Layout;  // the memory is zero already; this begins the objects' lives
  std::unique_ptr<ShmSegment> segment(new ShmSegment(layout, Role::dialled));
  segment->descriptor_ = std::move(descriptor);
  return segment;
}

std::unique_ptr<ShmSegment> ShmSegment::adopt(UniqueFd descriptor, std::string& error) {
  struct stat about {};
  const int seals = ::fcntl(descriptor.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(descriptor.get(), &about) != 0 ||
      about.st_size != static_cast<off_t>(sizeof(Layout))) {
    error = "shared memory: what the peer has passed is no lane's memory";
    return nullptr;
  }
  Layout* const layout = map(descriptor.get(), error);
  if (layout == nullptr) return nullptr;
  return std::unique_ptr<ShmSegment>(new ShmSegment(layout, Role::accepted));
}

ShmSegment::Layout* ShmSegment::map(int descriptor, std::string& error) {
  void* const at =
      ::mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
  if (at != MAP_FAILED) return static_cast<Layout*>(at);
  error = "shared memory: mmap: " + errno_text(errno);
  return nullptr;
}

ShmSegment::ShmSegment(Layout* layout, Role role) : layout_(layout), role_(role) {
  // Without random bytes the value only proves less.
  if (::getrandom(token_.data(), sizeof token_, GRND_NONBLOCK) < 0) token_ = {};
  own().token[0] = token_[0];
  own().token[1] = token_[1];
  own().token_address = reinterpret_cast<std::uintptr_t>(token_.data());
}

ShmSegment::~ShmSegment() { ::munmap(layout_, sizeof(Layout)); }

ShmSide& ShmSegment::own() { return layout_->sides[static_cast<std::size_t>(role_)]; }

ShmSide& ShmSegment::other() { return layout_->sides[1 - static_cast<std::size_t>(role_)]; }

ShmWriter ShmSegment::writer() {
  return {layout_->rings[static_cast<std::size_t>(role_)].data(), limits::shm_ring_bytes, own(), other()};
}

ShmReader ShmSegment::reader() {
  return {layout_->rings[1 - static_cast<std::size_t>(role_)].data(), limits::shm_ring_bytes, own(), other()};
}

void ShmSegment::try_to_read(pid_t process) {
  std::array<std::uint64_t, 2> token{};
  const iovec into{token.data(), sizeof token};
  const iovec from{reinterpret_cast<void*>(static_cast<std::uintptr_t>(other().token_address.load())), sizeof token};
  const bool read = process > 0 && ::process_vm_readv(process, &into, 1, &from, 1, 0) == sizeof token;
  if (!read || token[0] != other().token[0] || token[1] != other().token[1]) return;
  process_ = process;
  own().can_read = 1;
}

void ShmSegment::give_up_reading() {
  process_.reset();
  own().can_read = 0;
}

std::optional<pid_t> ShmSegment::readable_process() const {
  const ShmSide& other_side = layout_->sides[1 - static_cast<std::size_t>(role_)];
  return other_side.can_read.load() == 1 ? process_ : std::nullopt;
}

}  // namespace pccl
