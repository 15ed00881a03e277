#include "collective/direct_op.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/collectives.h"
#include "transport/link.h"

namespace pccl {
namespace {

using namespace std::chrono_literals;

// Reading fails a moment before the word comes that the other one has ended the op, or that its link is lost.
constexpr auto patience = 200ms;

// What a `ready` carries before what the way over the links adds. Both ends are on one host.
struct Opening {
  LentMemory memory;
  std::uint64_t agrees = 0;
};

}  // namespace

DirectOp::DirectOp(const Request& request, const Context& context, Algorithm algorithm,
                   const std::vector<std::uint32_t>& mates, std::unique_ptr<Op> links)
    : Op(request, context, algorithm), links_(std::move(links)) {
  const bool of_two = traits(request.call.kind).of_two;
  const auto ranks = of_two ? std::vector<std::uint32_t>{seat().peer_rank} : seat().others();
  for (const std::uint32_t rank : ranks) {
    Partner& other = others_.emplace_back();
    other.rank = rank;
    if (std::find(mates.begin(), mates.end(), rank) == mates.end()) continue;
    Link* const link = wire().link(rank);
    const std::optional<pid_t> process = link == nullptr ? std::nullopt : link->readable_process();
    agrees_ = agrees_ && process.has_value();
    other.process = process.value_or(0);
  }
  // Over several hosts it saves bytes on the links between them.
  if (algorithm == Algorithm::direct && !call().in_huge_pages) agrees_ = false;
  set_partners(ranks, true);
}

const DirectOp::Partner& DirectOp::partner(std::uint32_t rank) const {
  const auto found =
      std::find_if(others_.begin(), others_.end(), [rank](const Partner& one) { return one.rank == rank; });
  PCCL_CHECK(found != others_.end());
  return *found;
}

Payload DirectOp::ready_payload(std::uint32_t to) {
  const Offer given = offer(to);
  const Opening opening{loan_.describe(given.send, given.recv), agrees_ ? 1u : 0u};
  std::vector<std::uint8_t> bytes(sizeof opening);
  std::memcpy(bytes.data(), &opening, sizeof opening);
  if (const Payload more = links_->ready_payload(to)) bytes.insert(bytes.end(), more->begin(), more->end());
  return std::make_shared<const std::vector<std::uint8_t>>(std::move(bytes));
}

Op::Answer DirectOp::on_ready(std::uint32_t from, const Payload& payload, Difference& difference) {
  Opening opening;
  if (!payload || payload->size() < sizeof opening) return Answer::wrong;
  std::memcpy(&opening, payload->data(), sizeof opening);
  Payload rest;
  if (payload->size() > sizeof opening) {
    const auto begin = payload->begin() + static_cast<std::ptrdiff_t>(sizeof opening);
    rest = std::make_shared<const std::vector<std::uint8_t>>(begin, payload->end());
  }
  const Answer answer = links_->on_ready(from, rest, difference);
  if (answer != Answer::agreed) return answer;
  const auto found =
      std::find_if(others_.begin(), others_.end(), [from](const Partner& one) { return one.rank == from; });
  if (found == others_.end()) return Answer::wrong;
  found->is_ready = true;
  found->agrees = opening.agrees != 0;
  found->memory = opening.memory;
  decide();
  return Answer::agreed;
}

void DirectOp::decide() {
  const bool all_ready = std::all_of(others_.begin(), others_.end(), [](const Partner& one) { return one.is_ready; });
  if (way_ != Way::open || !all_ready) return;
  const bool all_agree = std::all_of(others_.begin(), others_.end(), [](const Partner& one) { return one.agrees; });
  if (!agrees_ || !all_agree) return take_links();
  way_ = Way::direct;
  wire().schedule();
}

// Here, or when the first chunk comes from somebody who knows already that this is the way.
void DirectOp::take_links() {
  if (way_ == Way::links) return;
  way_ = Way::links;
  if (!links_->prepare()) return fail_for_memory();
  for (const Partner& other : others_) wire().wake(other.rank);
}

void DirectOp::fail_for_memory() {
  no_memory_ = true;
  wire().schedule();
}

bool DirectOp::on_step(std::uint32_t from, const StepBody& body) {
  // Who sends it knows which way it is, perhaps before this rank does.
  if (body.step < first_direct_step) {
    if (way_ == Way::direct) return false;
    take_links();
    return no_memory_ || links_->on_step(from, body);
  }
  if (way_ == Way::links || !on_word(from, body)) return false;
  if (way_ == Way::direct) wire().schedule();
  return true;
}

std::optional<Error> DirectOp::work() {
  if (way_ == Way::direct && !begun_) {
    begun_ = true;
    no_memory_ = !begin();
  }
  if (no_memory_) return Error{ErrorCode::out_of_memory, "no memory to back up the input of an op in place", {}};
  if (way_ != Way::direct) return std::nullopt;
  if (unreadable_) {
    if (std::chrono::steady_clock::now() - unreadable_since_ < patience) return std::nullopt;
    return fail_for_good();
  }
  switch (copy_piece()) {
    case Piece::copied:
      if (!complete()) wire().schedule();
      break;
    case Piece::idle:
      break;
    case Piece::failed:
      wire().schedule_after(patience);
      break;
  }
  return std::nullopt;
}

// The next try goes over the links.
Error DirectOp::fail_for_good() {
  if (Link* const link = wire().link(*unreadable_)) link->give_up_reading();
  const std::string whose = "the memory of rank " + std::to_string(*unreadable_);
  return {ErrorCode::peer_lost, whose + " can't be read any more; call it again", {}};
}

bool DirectOp::read(const Partner& from, std::uint64_t address, void* to, std::size_t bytes) {
  if (!read_lent(from.process, from.memory, address, to, bytes)) {
    unreadable_ = from.rank;
    unreadable_since_ = std::chrono::steady_clock::now();
    return false;
  }
  count_received(bytes);
  return true;
}

bool DirectOp::done() const {
  if (way_ == Way::links) return !no_memory_ && links_->done();
  return way_ == Way::direct && begun_ && complete();
}

void DirectOp::restore() {
  loan_.end();
  if (way_ == Way::links) return links_->restore();
  if (begun_) undo();
}

OpResult DirectOp::result(std::optional<Error> error) const {
  return way_ == Way::links ? links_->result(std::move(error)) : Op::result(std::move(error));
}

Op::Turn DirectOp::turn(std::uint32_t from, const DataBody& body) const {
  return way_ == Way::direct ? Turn::wrong : links_->turn(from, body);
}

std::uint8_t* DirectOp::receive_begin(std::uint32_t from, const DataBody& body) {
  take_links();
  return no_memory_ ? nullptr : links_->receive_begin(from, body);
}

void DirectOp::receive_end(std::uint32_t from, const DataBody& body, const std::uint8_t* payload) {
  if (!no_memory_) links_->receive_end(from, body, payload);
}

std::optional<Op::Outgoing> DirectOp::next_send(std::uint32_t to) {
  return way_ == Way::links && !no_memory_ ? links_->next_send(to) : std::nullopt;
}

void DirectOp::send_again(std::uint32_t to, const DataBody& body) { links_->send_again(to, body); }

}  // namespace pccl
