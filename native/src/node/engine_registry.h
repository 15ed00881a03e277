// Engines of this process by number: how a worker thread finds the engine that another thread created.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "pccl/engine.h"

namespace pccl::node {

struct SharedEngine {
  std::uint32_t id = 0;
  std::shared_ptr<Engine> engine;
  // An engine hears its views from one side only.
  std::atomic<bool> has_control{false};
};

std::shared_ptr<SharedEngine> register_engine(std::shared_ptr<Engine> engine);
// Closed engines aren't found.
std::shared_ptr<SharedEngine> find_engine(std::uint32_t id);
void unregister_engine(std::uint32_t id);

}  // namespace pccl::node
