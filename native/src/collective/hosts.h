// Which members of a ring share a host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pccl/engine.h"

namespace pccl {

class Hosts {
 public:
  explicit Hosts(const View& view) : host_of_(view.hosts) {
    // Nothing is known: each has a host of its own.
    for (auto rank = static_cast<std::uint32_t>(host_of_.size()); rank < view.ring.size(); ++rank) {
      host_of_.push_back(rank);
    }
    for (std::uint32_t rank = 0; rank < host_of_.size(); ++rank) {
      if (mates(rank).front() == rank) leaders_.push_back(rank);
    }
  }

  bool same(std::uint32_t a, std::uint32_t b) const { return host_of_[a] == host_of_[b]; }
  // All on the host of this rank, itself too; ascending.
  std::vector<std::uint32_t> mates(std::uint32_t rank) const {
    std::vector<std::uint32_t> found;
    for (std::uint32_t other = 0; other < host_of_.size(); ++other) {
      if (same(rank, other)) found.push_back(other);
    }
    return found;
  }
  // The lowest rank of each host; ascending.
  const std::vector<std::uint32_t>& leaders() const { return leaders_; }
  bool is_one() const { return leaders_.size() == 1; }

 private:
  std::vector<std::uint32_t> host_of_;
  std::vector<std::uint32_t> leaders_;
};

}  // namespace pccl
