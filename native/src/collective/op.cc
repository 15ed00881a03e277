#include "collective/op.h"

#include "base/collectives.h"
#include "base/dtype.h"

namespace pccl {

namespace {

std::uint64_t common_count(const CollectiveCall& call) {
  switch (call.kind) {
    case Collective::all_reduce:
    case Collective::all_gather:
    case Collective::gather:
    case Collective::send:
      return call.send_count;
    case Collective::reduce_scatter:
    case Collective::broadcast:
    case Collective::scatter:
    case Collective::recv:
      return call.recv_count;
    case Collective::all_to_all:
    case Collective::barrier:
      return 0;
  }
  return 0;
}

}  // namespace

Descriptor describe_call(const CollectiveCall& call) {
  const CollectiveTraits& kind = traits(call.kind);
  Descriptor descriptor{.count = common_count(call),
                        .dtype = call.dtype,
                        .op = kind.reduces ? call.op : ReduceOp::sum,
                        .kind = kind.of_two ? Collective::send : call.kind,
                        .root = kind.has_root ? call.peer : 0};
  descriptor.quantization = call.quantization;
  descriptor.quantization.seed = 0;
  return descriptor;
}

std::vector<std::uint32_t> Op::Seat::neighbours() const {
  if (ranks == 1) return {};
  if (ranks == 2) return {next()};
  return {previous(), next()};
}

std::vector<std::uint32_t> Op::Seat::others() const {
  std::vector<std::uint32_t> all;
  for (std::uint32_t distance = 1; distance < ranks; ++distance) all.push_back((rank + distance) % ranks);
  return all;
}

Op::Op(const Request& request, const Context& context, Algorithm algorithm)
    : pool_(context.pool),
      request_(request),
      seat_(context.seat),
      wire_(context.wire),
      descriptor_(describe_call(request.call)),
      algorithm_(algorithm),
      element_bytes_(pccl::element_bytes(request.call.dtype)) {}

void Op::set_partners(std::vector<std::uint32_t> partners, bool words_to_all) {
  partners_ = std::move(partners);
  words_to_all_ = words_to_all;
}

OpResult Op::result(std::optional<Error> error) const {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - request_.posted;
  return {.error = std::move(error),
          .world_size = seat_.ranks,
          .tx_bytes = tx_bytes_,
          .rx_bytes = rx_bytes_,
          .seconds = time.count(),
          .algorithm = algorithm_};
}

}  // namespace pccl
