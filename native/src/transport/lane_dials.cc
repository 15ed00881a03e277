#include "transport/lane_dials.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace pccl {

void LaneDials::start(std::uint32_t slot, EventLoop::Clock::duration delay) {
  if (slots_.size() <= slot) slots_.resize(slot + 1);
  if (slots_[slot].dial) return;
  slots_[slot].pause = limits::dial_retry_delay_min;
  dial(slot, delay);
}

void LaneDials::filled(std::uint32_t slot) {
  if (slot < slots_.size() && slots_[slot].dial && slots_[slot].dial->state().empty()) slots_[slot].dial.reset();
}

void LaneDials::set_target(Target target) {
  target_ = std::move(target);
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].dial && owner_.wants(slot)) dial(slot, {});
  }
}

void LaneDials::stop() { slots_.clear(); }

void LaneDials::dial(std::uint32_t slot, EventLoop::Clock::duration delay) {
  Dial::Request request{.hello = target_.hello,
                        .path = target_.path,
                        .host = target_.host,
                        .port = target_.port,
                        .congestion_control = target_.congestion_control,
                        .first_delay = delay,
                        .timeout = timeout_};
  const std::uint64_t tried = std::max(slots_[slot].incarnation, owner_.taken_version(slot) / 2);
  slots_[slot].incarnation = tried + 1;
  request.hello.slot = slot;
  request.hello.incarnation = tried + 1;
  const Hello hello = request.hello;
  Dial::Outcome outcome{
      .connected =
          [this, hello](Connection connection, const Welcome& welcome) {
            const auto over = std::move(slots_[hello.slot].dial);
            owner_.dialled(hello, std::move(connection), welcome);
          },
      .gave_up =
          [this, slot](const std::string& reason, Dial::Failure failure) {
            last_failure_ = reason;
            again(slot);
            if (failure != Dial::Failure::passing) owner_.cannot_dial(failure);
          },
      .gone =
          [this, slot](const Welcome& welcome) {
            last_failure_ = "the peer has given the link up";
            again(slot);
            owner_.gone(welcome);
          },
  };
  slots_[slot].dial = std::make_unique<Dial>(loop_, resolver_, std::move(request), std::move(outcome));
}

void LaneDials::again(std::uint32_t slot) {
  const auto over = std::move(slots_[slot].dial);
  if (!owner_.wants(slot)) return;
  const auto pause = slots_[slot].pause;
  slots_[slot].pause = std::min<EventLoop::Clock::duration>(pause * 2, limits::dial_retry_delay_max);
  dial(slot, pause);
}

std::string LaneDials::state() const {
  if (!last_failure_.empty()) return last_failure_;
  for (const Slot& slot : slots_) {
    if (slot.dial && !slot.dial->state().empty()) return slot.dial->state();
  }
  return "the peer, which dials first, didn't connect";
}

}  // namespace pccl
