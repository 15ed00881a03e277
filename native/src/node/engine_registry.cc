#include "node/engine_registry.h"

#include <mutex>
#include <unordered_map>
#include <utility>

namespace pccl::node {

namespace {

struct Registry {
  std::mutex mutex;
  std::uint32_t last_id = 0;
  std::unordered_map<std::uint32_t, std::weak_ptr<SharedEngine>> engines;
};

// Never destroyed: process.exit runs static destructors while worker environments may still be ending.
Registry& registry() {
  static Registry& instance = *new Registry;
  return instance;
}

}  // namespace

std::shared_ptr<SharedEngine> register_engine(std::shared_ptr<Engine> engine) {
  auto shared = std::make_shared<SharedEngine>();
  shared->engine = std::move(engine);
  std::lock_guard lock(registry().mutex);
  shared->id = ++registry().last_id;
  registry().engines.emplace(shared->id, shared);
  return shared;
}

std::shared_ptr<SharedEngine> find_engine(std::uint32_t id) {
  std::lock_guard lock(registry().mutex);
  const auto found = registry().engines.find(id);
  return found == registry().engines.end() ? nullptr : found->second.lock();
}

void unregister_engine(std::uint32_t id) {
  std::lock_guard lock(registry().mutex);
  registry().engines.erase(id);
}

}  // namespace pccl::node
