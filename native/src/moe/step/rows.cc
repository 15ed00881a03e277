#include "moe/step/rows.h"

#include <array>
#include <bit>
#include <cstring>

#include "moe/ffn/activation.h"

namespace pccl::moe {

namespace {

inline float value_of(float number) { return number; }
inline float value_of(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// Calls `work` with a null pointer to what elements of the dtype, f32 or bf16, are stored as.
template <typename Work>
void with_type(DType dtype, Work&& work) {
  if (dtype == DType::f32) {
    work(static_cast<const float*>(nullptr));
  } else {
    work(static_cast<const std::uint16_t*>(nullptr));
  }
}

// A row of sums, as elements of the dtype.
void store_row(DType dtype, const float* sums, std::size_t width, std::size_t row, void* into) {
  if (dtype == DType::f32) {
    std::memcpy(static_cast<float*>(into) + row * width, sums, width * sizeof(float));
  } else {
    round_to_bf16(sums, width, static_cast<std::uint16_t*>(into) + row * width);
  }
}

template <typename T>
void add_row(const T* from, float factor, std::size_t width, float* sums) {
  for (std::size_t i = 0; i < width; ++i) sums[i] += factor * value_of(from[i]);
}

template <typename T>
void add_row(const T* from, std::size_t width, float* sums) {
  for (std::size_t i = 0; i < width; ++i) sums[i] += value_of(from[i]);
}

// Sixteen sums, each of every sixteenth product, which are then added in their order.
template <typename T>
float dot(const T* a, const T* b, std::size_t width) {
  std::array<float, 16> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= width; i += sums.size()) {
    for (std::size_t lane = 0; lane < sums.size(); ++lane) sums[lane] += value_of(a[i + lane]) * value_of(b[i + lane]);
  }
  for (std::size_t lane = 0; i < width; ++i, ++lane) sums[lane] += value_of(a[i]) * value_of(b[i]);
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

}  // namespace

void gather_rows(const std::byte* from, std::span<const std::uint32_t> rows, std::size_t row_bytes, std::byte* into) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(into + i * row_bytes, from + rows[i] * row_bytes, row_bytes);
  }
}

void gather_scaled_rows(DType dtype, const std::byte* from, std::span<const std::uint32_t> rows,
                        std::span<const float> factors, std::size_t width, gemm::AlignedArray<float>& sums,
                        std::byte* into) {
  float* const scaled = sums.reserve(width);
  with_type(dtype, [&]<typename T>(const T*) {
    const T* const all = reinterpret_cast<const T*>(from);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const T* const row = all + rows[i] * width;
      for (std::size_t j = 0; j < width; ++j) scaled[j] = factors[i] * value_of(row[j]);
      store_row(dtype, scaled, width, i, into);
    }
  });
}

void combine(const Combination& combination, gemm::AlignedArray<float>& sums, void* into) {
  const auto& [dtype, width, first_slot, places, gates, results, addends] = combination;
  float* const total = sums.reserve(width);
  with_type(dtype, [&]<typename T>(const T*) {
    const T* const rows = static_cast<const T*>(results);
    for (std::size_t token = 0; token + 1 < first_slot.size(); ++token) {
      std::memset(total, 0, width * sizeof(float));
      for (std::uint32_t slot = first_slot[token]; slot < first_slot[token + 1]; ++slot) {
        const T* const row = rows + std::size_t{places[slot]} * width;
        if (gates.empty()) {
          add_row(row, width, total);
        } else {
          add_row(row, gates[slot], width, total);
        }
      }
      for (const Addend& addend : addends) {
        with_type(addend.dtype, [&]<typename A>(const A*) {
          add_row(static_cast<const A*>(addend.rows) + token * width, width, total);
        });
      }
      store_row(dtype, total, width, token, into);
    }
  });
}

void gate_gradients(const Combination& combination, const void* output_gradient, float* into) {
  const auto& [dtype, width, first_slot, places, gates, results, addends] = combination;
  with_type(dtype, [&]<typename T>(const T*) {
    const T* const rows = static_cast<const T*>(results);
    const T* const gradients = static_cast<const T*>(output_gradient);
    for (std::size_t token = 0; token + 1 < first_slot.size(); ++token) {
      for (std::uint32_t slot = first_slot[token]; slot < first_slot[token + 1]; ++slot) {
        into[slot] = dot(gradients + token * width, rows + std::size_t{places[slot]} * width, width);
      }
    }
  });
}

void add_floats(const float* from, std::size_t count, float* into) {
  for (std::size_t i = 0; i < count; ++i) into[i] += from[i];
}

}  // namespace pccl::moe
