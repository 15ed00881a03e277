// A connection to one peer that exports state: asks, any number of questions without waiting, and puts the answers
// where they belong. I/O thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "state/state_wire.h"
#include "transport/dial.h"
#include "transport/event_loop.h"

namespace pccl {

class SourceConnection final : EventLoop::Handler {
 public:
  struct Ask {
    state_wire::Request request;
    std::uint32_t tensor = 0;      // the owner's
    std::uint8_t* into = nullptr;  // as long as the answer
  };
  // What it hears it hears from the midst of the connection's work, which it must not destroy or close there.
  class Owner {
   public:
    virtual void on_opened() = 0;
    // The answer is in its place; or the peer doesn't know it.
    virtual void on_answer(const Ask& ask, bool found) = 0;
    // The connection is closed, and takes no question before it is dialled again.
    virtual void on_broken(const std::string& reason) = 0;

   protected:
    ~Owner() = default;
  };

  SourceConnection(EventLoop& loop, Resolver& resolver, Owner& owner)
      : loop_(loop), resolver_(resolver), owner_(owner) {}
  SourceConnection(const SourceConnection&) = delete;

  void dial(Dial::Request to);
  bool is_open() const { return static_cast<bool>(fd_); }
  bool is_dialling() const { return dial_.has_value(); }

  void ask(const Ask& ask);
  void tell(const state_wire::Request& request);
  // Questions without an answer, in order.
  const std::deque<Ask>& asked() const { return asked_; }
  // The answer to the question at this place isn't wanted any more, and its memory not to be touched.
  void discard(std::size_t at) { asked_[at].into = nullptr; }
  // Ends it without a word to the owner. Gives the questions that were open.
  std::deque<Ask> close();

  // All that came.
  std::uint64_t rx_bytes() const { return rx_bytes_; }

 private:
  void on_ready(std::uint32_t events) override;
  void connected(UniqueFd fd);
  void send();
  void receive();
  bool receive_once();
  void broken(const std::string& reason);

  EventLoop& loop_;
  Resolver& resolver_;
  Owner& owner_;
  std::optional<Dial> dial_;
  UniqueFd fd_;
  EventLoop::Watch watch_;
  std::vector<std::uint8_t> outgoing_;
  std::deque<Ask> asked_;
  state_wire::ReplyBytes reply_{};
  std::size_t reply_got_ = 0;
  std::optional<state_wire::Reply> header_;
  std::uint64_t payload_got_ = 0;
  std::vector<std::uint8_t> waste_;  // for answers that nobody wants
  std::uint64_t rx_bytes_ = 0;
};

}  // namespace pccl
