#include "transport/resolver.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

namespace pccl {

struct Resolver::Shared {
  struct Question {
    std::string host;
    std::uint16_t port = 0;
    std::weak_ptr<Answer> wanted;
  };

  std::mutex mutex;
  std::condition_variable wake;
  EventLoop* loop = nullptr;  // null: stopped
  std::deque<Question> questions;
  bool asking = false;
};

Resolver::Resolver(EventLoop& loop) : shared_(std::make_shared<Shared>()) {
  shared_->loop = &loop;
  thread_ = std::thread([shared = shared_] { run(shared); });
}

Resolver::Ticket Resolver::resolve(const std::string& host, std::uint16_t port, Answer answer) {
  auto ticket = std::make_shared<Answer>(std::move(answer));
  const std::lock_guard lock(shared_->mutex);
  shared_->questions.push_back({host, port, ticket});
  shared_->wake.notify_one();
  return ticket;
}

void Resolver::stop() {
  if (!thread_.joinable()) return;
  bool asking = false;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->loop = nullptr;
    asking = shared_->asking;
  }
  shared_->wake.notify_one();
  if (asking) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void Resolver::run(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  for (;;) {
    shared->wake.wait(lock, [&] { return shared->loop == nullptr || !shared->questions.empty(); });
    if (shared->loop == nullptr) return;
    const Shared::Question question = std::move(shared->questions.front());
    shared->questions.pop_front();
    if (question.wanted.expired()) continue;
    shared->asking = true;
    lock.unlock();
    std::string error;
    std::vector<Address> addresses = resolve_now(question.host, question.port, error);
    lock.lock();
    shared->asking = false;
    if (shared->loop == nullptr) return;
    shared->loop->post([wanted = question.wanted, addresses = std::move(addresses), error = std::move(error)] {
      if (const auto still = wanted.lock()) (*still)(addresses, error);
    });
  }
}

}  // namespace pccl
