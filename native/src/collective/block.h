// A block of memory on its way from one rank to another, cut into chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/limits.h"
#include "collective/op.h"

namespace pccl {

constexpr std::uint64_t block_chunks(std::uint64_t bytes) {
  return (bytes + limits::chunk_bytes - 1) / limits::chunk_bytes;
}
constexpr std::uint32_t block_chunk_bytes(std::uint64_t bytes, std::uint64_t chunk) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(limits::chunk_bytes, bytes - chunk * limits::chunk_bytes));
}

// What is sent of a block: its chunks in order, or in the order in which they are added, and those that didn't arrive.
class OutgoingBlock {
 public:
  OutgoingBlock() = default;
  OutgoingBlock(const void* memory, std::uint64_t bytes)
      : memory_(static_cast<const std::uint8_t*>(memory)), bytes_(bytes) {}

  const std::uint8_t* memory() const { return memory_; }
  std::uint64_t bytes() const { return bytes_; }
  void add(std::uint64_t chunk) { sendable_.push_back(chunk); }
  void add_all() {
    for (std::uint64_t chunk = 0; chunk < block_chunks(bytes_); ++chunk) add(chunk);
  }
  void again(std::uint64_t chunk) { sendable_.push_front(chunk); }

  std::optional<Op::Outgoing> next(std::uint32_t step) {
    if (sendable_.empty()) return std::nullopt;
    const std::uint64_t chunk = sendable_.front();
    sendable_.pop_front();
    return Op::Outgoing{{step, chunk, block_chunk_bytes(bytes_, chunk)}, memory_ + chunk * limits::chunk_bytes};
  }

 private:
  const std::uint8_t* memory_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::deque<std::uint64_t> sendable_;
};

// What has come of a block, straight into its place.
class IncomingBlock {
 public:
  IncomingBlock() = default;
  IncomingBlock(void* memory, std::uint64_t bytes)
      : memory_(static_cast<std::uint8_t*>(memory)), bytes_(bytes), received_(block_chunks(bytes)) {}

  std::uint8_t* memory() const { return memory_; }
  std::uint64_t bytes() const { return bytes_; }
  bool whole() const { return received_count_ == received_.size(); }
  void set_whole() { received_count_ = received_.size(); }

  Op::Turn turn(const DataBody& body) const {
    if (body.chunk >= received_.size() || body.bytes != block_chunk_bytes(bytes_, body.chunk)) return Op::Turn::wrong;
    return whole() || received_[body.chunk] ? Op::Turn::received : Op::Turn::wanted;
  }
  std::uint8_t* place(const DataBody& body) const { return memory_ + body.chunk * limits::chunk_bytes; }
  // False: two lanes have brought it at once, and the other one was first.
  bool end(const DataBody& body) {
    if (received_[body.chunk]) return false;
    received_[body.chunk] = true;
    ++received_count_;
    return true;
  }

 private:
  std::uint8_t* memory_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::vector<bool> received_;
  std::uint64_t received_count_ = 0;
};

}  // namespace pccl
