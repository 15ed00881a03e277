// Ranks as processes that one program forks, with a maximum over all of them by shared memory.
#pragma once

#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "measure.h"

namespace peers {

class Ranks {
 public:
  explicit Ranks(int count) : count_(count) {
    void* const memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    shared_ = new (memory) Shared;
    pthread_barrierattr_t attributes;
    ::pthread_barrierattr_init(&attributes);
    ::pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_barrier_init(&shared_->barrier, &attributes, static_cast<unsigned>(count));
  }

  // Runs body(rank) in a process for each rank; returns the program's exit status. A rank that fails ends the others.
  template <typename Body>
  int run(Body body) {
    const pid_t parent = ::getpid();
    std::vector<pid_t> children;
    for (int rank = 0; rank < count_; ++rank) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(1);
        body(rank);
        std::fflush(stdout);
        ::_exit(0);
      }
      children.push_back(pid);
    }
    int failed = 0;
    for (int i = 0; i < count_; ++i) {
      int status = 0;
      ::wait(&status);
      if (status == 0) continue;
      failed = 1;
      for (const pid_t pid : children) ::kill(pid, SIGKILL);
    }
    return failed;
  }

  void max(double* values, std::size_t count) {
    for (std::size_t begin = 0; begin < count; begin += slots) {
      const std::size_t part = std::min(slots, count - begin);
      for (int rank = 0; rank < count_; ++rank) {
        ::pthread_barrier_wait(&shared_->barrier);
        if (rank != self_) continue;
        for (std::size_t i = 0; i < part; ++i) {
          shared_->values[i] = rank == 0 ? values[begin + i] : std::max(shared_->values[i], values[begin + i]);
        }
      }
      ::pthread_barrier_wait(&shared_->barrier);
      std::copy(shared_->values, shared_->values + part, values + begin);
      ::pthread_barrier_wait(&shared_->barrier);
    }
  }

  // In a rank's process, before max().
  void be(int rank) { self_ = rank; }

 private:
  static constexpr std::size_t slots = 256;
  struct Shared {
    pthread_barrier_t barrier;
    double values[slots];
  };

  const int count_;
  int self_ = -1;
  Shared* shared_ = nullptr;
};

}  // namespace peers
