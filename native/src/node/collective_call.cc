#include "node/collective_call.h"

#include <array>
#include <string>
#include <utility>

#include "base/collectives.h"
#include "base/dtype.h"
#include "node/arguments.h"
#include "node/errors.h"
#include "node/quantization.h"

namespace pccl::node {

namespace {

struct Kind {
  const char* name;
  const char* method;  // as callers know it
};

// By the numbers of Collective.
constexpr std::array<Kind, collectives.size()> kinds = {{
    {"all-reduce", "allReduce"},
    {"reduce-scatter", "reduceScatter"},
    {"all-gather", "allGather"},
    {"broadcast", "broadcast"},
    {"all-to-all", "allToAll"},
    {"gather", "gather"},
    {"scatter", "scatter"},
    {"barrier", "barrier"},
    {"send", "send"},
    {"recv", "recv"},
}};

Collective read_kind(Napi::Value value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (name == kinds[i].name) return static_cast<Collective>(i);
  }
  throw_not(value, "start: call.kind", "\"all-reduce\" or another kind of collective");
}

std::vector<std::uint64_t> read_counts(Napi::Value value, const std::string& what) {
  std::vector<std::uint64_t> counts;
  if (value.IsUndefined()) return counts;
  const Napi::Array array = read_array(value, what);
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    counts.push_back(read_integer(array.Get(i), what + "[" + std::to_string(i) + "]", 0, safe_integer_max));
  }
  return counts;
}

// The properties of a call, all read before the first pointer: reading one can run the caller's code.
struct Properties {
  Napi::Value send, recv, data, dtype;
};

class Reader {
 public:
  Reader(Napi::Env env, CollectiveCall& call, Lease& lease)
      : env_(env), call_(call), lease_(lease), method_(kinds[static_cast<std::size_t>(call.kind)].method) {}

  std::string what(const char* property) const { return std::string(method_) + ": " + property; }

  void buffers(const Properties& properties) {
    switch (call_.kind) {
      case Collective::barrier:
        return;
      case Collective::broadcast:
      case Collective::recv:
        return set_recv(buffer("data", properties.data, properties.dtype));
      case Collective::send:
        return set_send(buffer("data", properties.data, properties.dtype));
      case Collective::gather:
        set_send(buffer("send", properties.send, properties.dtype));
        if (!properties.recv.IsUndefined()) set_recv(buffer("recv", properties.recv, properties.dtype));
        return;
      case Collective::scatter:
        set_recv(buffer("recv", properties.recv, properties.dtype));
        if (!properties.send.IsUndefined()) set_send(buffer("send", properties.send, properties.dtype));
        return;
      default:
        set_send(buffer("send", properties.send, properties.dtype));
        set_recv(buffer("recv", properties.recv, properties.dtype));
    }
  }

 private:
  Tensor buffer(const char* property, Napi::Value value, Napi::Value dtype) {
    const Tensor tensor = read_tensor(value, what(property));
    if (first_ && first_->dtype != tensor.dtype) {
      throw_invalid(env_, std::string(method_) + ": send and recv must have the same type, got " +
                              dtype_name(call_.send != nullptr ? first_->dtype : tensor.dtype) + " and " +
                              dtype_name(call_.send != nullptr ? tensor.dtype : first_->dtype) + ".");
    }
    first_ = tensor;
    call_.dtype = read_dtype(dtype, what("dtype"), tensor);
    lease_.pin(value);
    return tensor;
  }
  void set_send(const Tensor& tensor) {
    call_.send = tensor.data;
    call_.send_count = tensor.count;
  }
  void set_recv(const Tensor& tensor) {
    call_.recv = tensor.data;
    call_.recv_count = tensor.count;
  }

  Napi::Env env_;
  CollectiveCall& call_;
  Lease& lease_;
  const char* method_;
  std::optional<Tensor> first_;
};

}  // namespace

ReadCall read_collective_call(Napi::Value value) {
  const Napi::Object object = read_object(value, "start: call");
  ReadCall read;
  CollectiveCall& call = read.call;
  call.kind = read_kind(object.Get("kind"));
  const CollectiveTraits& kind = traits(call.kind);
  Reader reader(value.Env(), call, read.lease);
  const Properties properties{object.Get("send"), object.Get("recv"), object.Get("data"), object.Get("dtype")};
  if (kind.reduces) {
    call.op = read_reduce_op(object.Get("op"), reader.what("op"));
    call.quantization = read_quantization(object.Get("quantize"), reader.what("quantize"));
  }
  const char* const peer = kind.has_root                     ? "root"
                           : call.kind == Collective::send ? "to"
                           : call.kind == Collective::recv ? "from"
                                                           : nullptr;
  if (peer != nullptr) call.peer = read_integer(object.Get(peer), reader.what(peer), 0, safe_integer_max);
  if (call.kind == Collective::all_to_all) {
    call.send_counts = read_counts(object.Get("sendCounts"), reader.what("sendCounts"));
    call.recv_counts = read_counts(object.Get("recvCounts"), reader.what("recvCounts"));
  }
  call.tag = read_tag(object.Get("tag"), reader.what("tag"));
  reader.buffers(properties);
  call.in_huge_pages = read.lease.is_in_pages();
  return read;
}

}  // namespace pccl::node
