// Assertions for invariants of this library, on in every build. What a peer, a user or the system can cause is
// never asserted: those are values with error codes.
#pragma once

#include <cstdio>
#include <cstdlib>

#define PCCL_CHECK(condition)                                                                       \
  do {                                                                                              \
    if (!(condition)) [[unlikely]] {                                                                \
      std::fprintf(stderr, "pccl: broken invariant: %s (%s:%d)\n", #condition, __FILE__, __LINE__); \
      std::abort();                                                                                 \
    }                                                                                               \
  } while (false)
