// One thread that runs tasks in the order they came.
#pragma once

#include "base/worker_pool.h"

namespace pccl {

class WorkerThread : public WorkerPool {
 public:
  WorkerThread() : WorkerPool(1) {}
};

}  // namespace pccl
