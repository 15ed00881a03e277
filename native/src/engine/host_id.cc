#include "engine/host_id.h"

#include <sys/stat.h>

#include <fstream>

#include "hash/xxh3.h"

namespace pccl {

std::string read_host_id() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat network {};
  if (boot.empty() || ::stat("/proc/thread-self/ns/net", &network) != 0) return "";
  const std::string all = boot + "/" + std::to_string(network.st_dev) + "/" + std::to_string(network.st_ino);
  return to_hex(xxh3_128(all.data(), all.size()));
}

}  // namespace pccl
