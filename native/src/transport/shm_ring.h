// A ring of bytes in memory that two processes share: one writes, one reads (Lamport, "Specifying concurrent program
// modules", 1983). Positions count bytes from the beginning and never wrap around. Each side goes by its own copy of
// its own position, and believes the other side's only as far as it is possible: whatever the other process does to
// the memory, nothing outside the ring is touched.
//
// A side that is about to sleep says so in its ShmSide, and looks once more; the other side, having moved its
// position, looks there. All of these are sequentially consistent, so at least one of the two sees the other.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace pccl {

// What one side writes and the other one reads.
struct ShmSide {
  alignas(64) std::atomic<std::uint64_t> written{0};  // in the ring that it writes
  alignas(64) std::atomic<std::uint64_t> read{0};     // in the ring that it reads
  // What it sleeps for. Whoever has that clears this, and rings.
  static constexpr std::uint32_t for_bytes = 1, for_room = 2;
  // Beside these: it has nothing in flight.
  static constexpr std::uint32_t idle = 4;
  alignas(64) std::atomic<std::uint32_t> asleep{0};

  // At set-up: where its process has a random value, and whether it can read that of the other's.
  std::atomic<std::uint64_t> token_address{0};
  std::atomic<std::uint64_t> token[2]{};
  std::atomic<std::uint32_t> can_read{0};
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

// Bytes that are moved before the other side hears of them: it can begin while more follow.
inline constexpr std::size_t shm_piece_bytes = 64 * 1024;

class ShmWriter {
 public:
  ShmWriter(std::uint8_t* ring, std::size_t size, ShmSide& own, ShmSide& other)
      : ring_(ring), size_(size), own_(own), other_(other) {}

  // Nothing: the reader's position can't be.
  std::optional<std::size_t> room() const {
    const std::uint64_t unread = at_ - other_.read.load();
    if (unread > size_) return std::nullopt;
    return size_ - static_cast<std::size_t>(unread);
  }

  // As much as there is room for; `moved` is called after each piece.
  template <typename F>
  std::optional<std::size_t> write(std::span<const iovec> from, F moved) {
    std::size_t total = 0;
    std::size_t unannounced = 0;
    auto free = room();
    for (const iovec& part : from) {
      const auto* bytes = static_cast<const std::uint8_t*>(part.iov_base);
      for (std::size_t left = part.iov_len; left > 0;) {
        if (!free) return std::nullopt;
        if (*free == 0) break;
        const std::size_t offset = at_ % size_;
        const std::size_t count = std::min({left, *free, size_ - offset, shm_piece_bytes - unannounced});
        std::memcpy(ring_ + offset, bytes, count);
        bytes += count;
        left -= count;
        at_ += count;
        total += count;
        unannounced += count;
        *free -= count;
        if (unannounced < shm_piece_bytes && *free > 0) continue;
        announce(unannounced, moved);
        free = room();
      }
    }
    if (unannounced > 0) announce(unannounced, moved);
    return total;
  }

 private:
  template <typename F>
  void announce(std::size_t& unannounced, F& moved) {
    own_.written.store(at_);
    unannounced = 0;
    moved();
  }

  std::uint8_t* const ring_;
  const std::size_t size_;
  ShmSide& own_;
  const ShmSide& other_;
  std::uint64_t at_ = 0;
};

class ShmReader {
 public:
  ShmReader(const std::uint8_t* ring, std::size_t size, ShmSide& own, ShmSide& other)
      : ring_(ring), size_(size), own_(own), other_(other) {}

  // Bytes to read; nothing: the writer's position can't be.
  std::optional<std::size_t> available() const {
    const std::uint64_t unread = other_.written.load() - at_;
    if (unread > size_) return std::nullopt;
    return static_cast<std::size_t>(unread);
  }

  template <typename F>
  std::optional<std::size_t> read(std::span<const iovec> into, F moved) {
    std::size_t total = 0;
    std::size_t unannounced = 0;
    auto ready = available();
    for (const iovec& part : into) {
      auto* bytes = static_cast<std::uint8_t*>(part.iov_base);
      for (std::size_t left = part.iov_len; left > 0;) {
        if (!ready) return std::nullopt;
        if (*ready == 0) break;
        const std::size_t offset = at_ % size_;
        const std::size_t count = std::min({left, *ready, size_ - offset, shm_piece_bytes - unannounced});
        std::memcpy(bytes, ring_ + offset, count);
        bytes += count;
        left -= count;
        at_ += count;
        total += count;
        unannounced += count;
        *ready -= count;
        if (unannounced < shm_piece_bytes && *ready > 0) continue;
        announce(unannounced, moved);
        ready = available();
      }
    }
    if (unannounced > 0) announce(unannounced, moved);
    return total;
  }

  // Of the whole ring, as this side has read it.
  std::size_t free_bytes() const {
    return size_ - std::min(size_, static_cast<std::size_t>(other_.written.load() - at_));
  }

 private:
  template <typename F>
  void announce(std::size_t& unannounced, F& moved) {
    own_.read.store(at_);
    unannounced = 0;
    moved();
  }

  const std::uint8_t* const ring_;
  const std::size_t size_;
  ShmSide& own_;
  const ShmSide& other_;
  std::uint64_t at_ = 0;
};

}  // namespace pccl
