// Stored weights as floats on the device: one number of a plain dtype, or one block of a GGUF type, through
// the decoders that every device shares.
#pragma once

#ifdef __CUDACC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 20091  // the decoders' tables are the device's; no host code calls them here
#endif
#include "../quant_decode.h"
#ifdef __CUDACC__
#pragma nv_diagnostic pop
#endif
#include "numbers.cuh"

namespace kotoba::cuda {

inline bool is_plain(DType dtype) { return info(dtype).block == 1; }

// f.template operator()<Weight>() with the Number of the plain `dtype`.
template <typename F>
void dispatch_plain(DType dtype, const char* op, F f) {
  switch (dtype) {
    case DType::F32:
      return f.template operator()<F32Number>();
    case DType::F64:
      return f.template operator()<F64Number>();
    case DType::F16:
      return f.template operator()<F16Number>();
    case DType::BF16:
      return f.template operator()<BF16Number>();
    case DType::F8_E4M3:
      return f.template operator()<F8E4M3Number>();
    case DType::F8_E5M2:
      return f.template operator()<F8E5M2Number>();
    default:
      throw Error("ERR_ARGUMENT",
                  detail::join(op, ": expected weights of a float type, got ", info(dtype).name));
  }
}

// f.template operator()<Block>() with the GGUF block type of `dtype`.
template <typename F>
void dispatch_block(DType dtype, const char* op, F f) {
  switch (dtype) {
#define X(name)     \
  case DType::name: \
    return f.template operator()<Block##name>();
    KOTOBA_BLOCK_TYPES(X)
#undef X
    default:
      throw Error("ERR_ARGUMENT",
                  detail::join(op, ": expected weights of a GGUF type, got ", info(dtype).name));
  }
}

// A vector of any plain float dtype, read number by number; absent if data is null.
struct Vector {
  const std::byte* data = nullptr;
  DType dtype = DType::F32;
};

__device__ __forceinline__ float load(const Vector& v, int64_t i) {
  switch (v.dtype) {
    case DType::F32:
      return reinterpret_cast<const float*>(v.data)[i];
    case DType::F64:
      return static_cast<float>(reinterpret_cast<const double*>(v.data)[i]);
    case DType::F16:
      return f16_to_f32(reinterpret_cast<const uint16_t*>(v.data)[i]);
    case DType::BF16:
      return bf16_to_f32(reinterpret_cast<const uint16_t*>(v.data)[i]);
    case DType::F8_E4M3:
      return f8_e4m3_to_f32(reinterpret_cast<const uint8_t*>(v.data)[i]);
    default:
      return f8_e5m2_to_f32(reinterpret_cast<const uint8_t*>(v.data)[i]);
  }
}

}  // namespace kotoba::cuda
