#include "transport/resolver.h"

#include <utility>

namespace pccl {

Resolver::Ticket Resolver::resolve(const std::string& host, std::uint16_t port, Answer answer) {
  auto ticket = std::make_shared<Answer>(std::move(answer));
  thread_.post([this, host, port, wanted = std::weak_ptr<Answer>(ticket)] {
    if (wanted.expired()) return;
    std::string error;
    std::vector<Address> addresses = resolve_now(host, port, error);
    loop_.post([wanted, addresses = std::move(addresses), error = std::move(error)] {
      if (const auto still = wanted.lock()) (*still)(addresses, error);
    });
  });
  return ticket;
}

}  // namespace pccl
