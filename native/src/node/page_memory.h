// Memory for tensors, straight from the system: whole pages, huge ones where the system has them, which peers on the
// same host read about twice as fast, and which take a fraction of the page faults.
#pragma once

#include <napi.h>

namespace pccl::node {

// allocate(bytes): a zeroed ArrayBuffer over such memory. It goes back to the system when the buffer is collected.
// Throws ERR_PCCL_OUT_OF_MEMORY when there is none left.
Napi::Value allocate(const Napi::CallbackInfo& info);

}  // namespace pccl::node
