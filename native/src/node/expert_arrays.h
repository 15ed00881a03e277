// The arrays of one call with experts: checked, pinned, and with no output in the memory of another argument.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "moe/ffn/expert.h"
#include "node/buffers.h"

namespace pccl::node {

moe::ExpertShape read_expert_shape(Napi::Value value, const std::string& what);

class ExpertArrays {
 public:
  enum class Use { input, output, sum };

  // Numbers of a dtype; bf16 lies in a Uint16Array. Returns where they are.
  std::byte* read(Napi::Value value, const std::string& what, DType dtype, std::uint64_t count, Use use,
                  std::size_t tensor_index = 0);

  // Packed weights for inference, or with what training needs.
  std::byte* read_packed(Napi::Value value, const std::string& what, const moe::ExpertShape& shape, bool trains,
                         Use use);

  // Call after the last one was read.
  void require_separate(Napi::Env env);

  Lease take_lease() { return std::move(lease_); }

 private:
  struct Read {
    std::string what;
    std::uintptr_t begin;
    std::uintptr_t end;
    Use use;
    std::size_t tensor_index;

    bool is_same_sum(const Read& other) const {
      return use == Use::sum && other.use == Use::sum && tensor_index == other.tensor_index && begin == other.begin &&
             end == other.end;
    }
  };

  std::byte* add(Napi::Value value, const std::string& what, const Tensor& tensor, Use use, std::size_t tensor_index);

  std::vector<Read> reads_;
  Lease lease_;
};

}  // namespace pccl::node
