// oneDNN's matrix product on one thread, where it was installed when this was built: a second opinion on results, and
// on speed.
#pragma once

#ifdef PCCL_ONE_DNN
#include <omp.h>

#include <cstring>
#include <dnnl.hpp>

#include "base/dtype.h"

namespace pccl {

// rows × depth by depth × columns, row-major, with weights in the layout that oneDNN chooses; the result is f32.
class OneDnnProduct {
 public:
  OneDnnProduct(DType dtype, std::size_t rows, std::size_t depth, std::size_t columns, const void* left,
                const void* right) {
    omp_set_num_threads(1);
    using dnnl::memory;
    const auto type = dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const auto m = static_cast<memory::dim>(rows);
    const auto k = static_cast<memory::dim>(depth);
    const auto n = static_cast<memory::dim>(columns);
    const memory::desc left_desc({m, k}, type, memory::format_tag::ab);
    const memory::desc any_desc({k, n}, type, memory::format_tag::any);
    const memory::desc into_desc({m, n}, memory::data_type::f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc product({left_desc, any_desc, into_desc}, engine_);
    left_ = memory(left_desc, engine_);
    std::memcpy(left_.get_data_handle(), left, left_desc.get_size());
    memory plain({{k, n}, type, memory::format_tag::ab}, engine_);
    std::memcpy(plain.get_data_handle(), right, plain.get_desc().get_size());
    right_ = memory(product.weights_desc(), engine_);
    dnnl::reorder(plain, right_).execute(stream_, plain, right_);
    into_ = memory(into_desc, engine_);
    product_ = dnnl::matmul(product);
    stream_.wait();
  }

  const float* run() {
    product_.execute(stream_, {{DNNL_ARG_SRC, left_}, {DNNL_ARG_WEIGHTS, right_}, {DNNL_ARG_DST, into_}});
    stream_.wait();
    return static_cast<const float*>(into_.get_data_handle());
  }

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::memory left_;
  dnnl::memory right_;
  dnnl::memory into_;
  dnnl::matmul product_;
};

}  // namespace pccl
#endif
