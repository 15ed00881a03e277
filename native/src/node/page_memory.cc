#include "node/page_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "node/arguments.h"
#include "node/errors.h"

namespace pccl::node {

namespace {

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
constexpr std::uint64_t bytes_max = std::uint64_t{1} << 46;

struct Mapping {
  std::byte* memory = nullptr;
  std::size_t bytes = 0;
  int file = -1;  // that other processes map
};

// Unmaps when it goes.
class Pages {
 public:
  explicit Pages(const Mapping& mapping) : mapping_(mapping) {}
  ~Pages() {
    ::munmap(mapping_.memory, mapping_.bytes);
    if (mapping_.file >= 0) ::close(mapping_.file);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  bool contain(const void* address) const {
    const auto offset = reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(mapping_.memory);
    return offset < mapping_.bytes;
  }

 private:
  const Mapping mapping_;
};

// All pages of the process that a buffer still has, by their addresses.
class Directory {
 public:
  void add(const std::byte* memory, std::shared_ptr<const Pages> pages) {
    const std::lock_guard lock(mutex_);
    pages_[memory] = std::move(pages);
  }
  // The pages go with the last one who holds them.
  void remove(const std::byte* memory) {
    std::shared_ptr<const Pages> last;
    const std::lock_guard lock(mutex_);
    const auto found = pages_.find(memory);
    last = std::move(found->second);
    pages_.erase(found);
  }
  std::shared_ptr<const Pages> find(const void* address) {
    const std::lock_guard lock(mutex_);
    auto after = pages_.upper_bound(static_cast<const std::byte*>(address));
    if (after == pages_.begin()) return nullptr;
    const std::shared_ptr<const Pages>& pages = std::prev(after)->second;
    return pages->contain(address) ? pages : nullptr;
  }

 private:
  std::mutex mutex_;
  std::map<const std::byte*, std::shared_ptr<const Pages>> pages_;
};

// Never destroyed: buffers are finalized until the process ends.
Directory& directory() {
  static auto* const all = new Directory;
  return *all;
}

std::byte* map(std::size_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
}

// Huge pages, and aligned to one, if there is at least one. memory is null when the system has none left.
Mapping map_pages(std::size_t bytes) {
  if (bytes < huge_page_bytes) return {map(bytes), bytes, -1};
  const std::size_t kept = (bytes + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
  std::byte* const begin = map(kept + huge_page_bytes);
  if (begin == nullptr) return {};
  // What is too much on both sides of the aligned part goes back.
  const std::size_t before = huge_page_bytes - reinterpret_cast<std::uintptr_t>(begin) % huge_page_bytes;
  ::munmap(begin, before);
  if (before < huge_page_bytes) ::munmap(begin + before + kept, huge_page_bytes - before);
  ::madvise(begin + before, kept, MADV_HUGEPAGE);
  return {begin + before, kept, -1};
}

// Closes when it goes, unless it is kept.
class File {
 public:
  explicit File(int number) : number_(number) {}
  ~File() {
    if (number_ >= 0) ::close(number_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int number() const { return number_; }
  int keep() { return std::exchange(number_, -1); }

 private:
  int number_;
};

// Memory as a file that has no name and never changes its size, so that whoever maps it can read all of it for good.
// memory is null when the system has none.
Mapping map_file(std::size_t bytes) {
  File file(::memfd_create("pccl-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file.number() < 0 || ::ftruncate(file.number(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(file.number(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return {};
  }
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.number(), 0);
  if (at == MAP_FAILED) return {};
  ::madvise(at, bytes, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(at), bytes, file.keep()};
}

Napi::ArrayBuffer buffer_over(Napi::Env env, const Mapping& mapping, std::uint64_t bytes) {
  directory().add(mapping.memory, std::make_shared<const Pages>(mapping));
  return Napi::ArrayBuffer::New(env, mapping.memory, bytes, [](Napi::Env, void* memory) {
    directory().remove(static_cast<const std::byte*>(memory));
  });
}

[[noreturn]] void throw_no_memory(Napi::Env env, const std::string& call, std::uint64_t bytes) {
  const std::string why = std::strerror(errno);
  const std::string what = call + ": no memory for " + std::to_string(bytes) + " bytes: " + why + ".";
  throw_error(env, {ErrorCode::out_of_memory, what, std::nullopt});
}

}  // namespace

Napi::Value allocate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::uint64_t bytes = read_integer(info[0], "alloc: bytes", 1, bytes_max);
    const Mapping mapping = map_pages(bytes);
    if (mapping.memory == nullptr) throw_no_memory(env, "alloc", bytes);
    return buffer_over(env, mapping, bytes);
  });
}

Napi::Value allocate_shared(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::uint64_t bytes = read_integer(info[0], "allocateShared: bytes", 1, bytes_max);
    const Mapping mapping = map_file(bytes);
    if (mapping.memory == nullptr) throw_no_memory(env, "allocateShared", bytes);
    Napi::Object result = Napi::Object::New(env);
    result.Set("buffer", buffer_over(env, mapping, bytes));
    result.Set("file", Napi::Number::New(env, mapping.file));
    return result;
  });
}

Napi::Value map_shared(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translate(env, [&]() -> Napi::Value {
    const std::uint64_t process = read_integer(info[0], "mapShared: process", 1, INT32_MAX);
    const std::uint64_t number = read_integer(info[1], "mapShared: file", 0, INT32_MAX);
    const std::uint64_t bytes = read_integer(info[2], "mapShared: bytes", 1, bytes_max);
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(number);
    // Whatever else the path may lead to, on another host say, isn't sealed, or isn't as large.
    File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat status {};
    if (file.number() < 0 || ::fstat(file.number(), &status) != 0 || !S_ISREG(status.st_mode) ||
        static_cast<std::uint64_t>(status.st_size) != bytes) {
      return env.Undefined();
    }
    const int seals = ::fcntl(file.number(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return env.Undefined();
    void* const at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.number(), 0);
    if (at == MAP_FAILED) return env.Undefined();
    return buffer_over(env, {static_cast<std::byte*>(at), bytes, -1}, bytes);
  });
}

std::shared_ptr<const void> hold_pages(const void* address) { return directory().find(address); }

}  // namespace pccl::node
