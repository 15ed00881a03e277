// Memory for tensors, straight from the system: whole pages, huge ones where the system has them, which peers on the
// same host read about twice as fast, and which take a fraction of the page faults.
#pragma once

#include <napi.h>

#include <memory>

namespace pccl::node {

// allocate(bytes): a zeroed ArrayBuffer over such memory. It goes back to the system when the buffer is collected and
// nobody holds it. Throws ERR_PCCL_OUT_OF_MEMORY when there is none left.
Napi::Value allocate(const Napi::CallbackInfo& info);

// allocateShared(bytes): the same in a file without a name, as {buffer, file}; the file's number in this process is
// what mapShared(process, file, bytes) of another process on this host takes. That gives a buffer over the same memory
// that must not be written to, or undefined if there is no such memory that this process may read. Memory lives as long
// as anybody's buffer over it.
Napi::Value allocate_shared(const Napi::CallbackInfo& info);
Napi::Value map_shared(const Napi::CallbackInfo& info);

// Keeps the memory at an address, if allocate gave it, for as long as the result lives; null for other memory. An
// environment that ends lets its buffers go before it tells anybody, so that a reference to one isn't enough.
std::shared_ptr<const void> hold_pages(const void* address);

}  // namespace pccl::node
