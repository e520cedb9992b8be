// Numbers of the plain float dtypes: what lies in memory (Stored), and the way to a float and back.
#pragma once

#include "../errors.h"
#include "../float_formats.h"
#include "../tensor_view.h"
#include "ptx.cuh"

namespace kotoba::cuda {

// ---- activations. encode rounds to the nearest, ties to even; too large becomes infinite.
struct F32Number {
  using Stored = float;
  static __device__ __forceinline__ float decode(float v) { return v; }
  static __device__ __forceinline__ float encode(float v) { return v; }
};
struct F16Number {
  using Stored = uint16_t;
  static __device__ __forceinline__ float decode(uint16_t v) { return f16_to_f32(v); }
  static __device__ __forceinline__ uint16_t encode(float v) {
    return static_cast<uint16_t>(ptx::pack_f16x2(v, 0));
  }
  // Two numbers in one register, the first in its low half.
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    return ptx::pack_f16x2(low, high);
  }
};
struct BF16Number {
  using Stored = uint16_t;
  static __device__ __forceinline__ float decode(uint16_t v) { return bf16_to_f32(v); }
  static __device__ __forceinline__ uint16_t encode(float v) {
    return static_cast<uint16_t>(ptx::pack_bf16x2(v, 0));
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    return ptx::pack_bf16x2(low, high);
  }
};

// ---- weights only
struct F64Number {
  using Stored = double;
  static __device__ __forceinline__ float decode(double v) { return static_cast<float>(v); }
};
struct F8E4M3Number {
  using Stored = uint8_t;
  static __device__ __forceinline__ float decode(uint8_t v) { return f8_e4m3_to_f32(v); }
};
struct F8E5M2Number {
  using Stored = uint8_t;
  static __device__ __forceinline__ float decode(uint8_t v) { return f8_e5m2_to_f32(v); }
};

// f.template operator()<Number>() with the activation dtype's Number.
template <typename F>
void dispatch_activation(DType dtype, const char* op, F f) {
  switch (dtype) {
    case DType::F32:
      return f.template operator()<F32Number>();
    case DType::F16:
      return f.template operator()<F16Number>();
    case DType::BF16:
      return f.template operator()<BF16Number>();
    default:
      throw Error("ERR_ARGUMENT",
                  detail::join(op, ": expected F32, F16 or BF16 activations, got ", info(dtype).name));
  }
}

// The same for the two 16-bit ones.
template <typename F>
void dispatch_16_bit(DType dtype, const char* op, F f) {
  require(dtype == DType::F16 || dtype == DType::BF16, op, ": expected F16 or BF16, got ", info(dtype).name);
  if (dtype == DType::F16) return f.template operator()<F16Number>();
  return f.template operator()<BF16Number>();
}

// Activations whose dtype is known at run time only, read and written one at a time.
struct Numbers {
  std::byte* data = nullptr;
  DType dtype = DType::F32;

  __device__ __forceinline__ float load(int64_t i) const {
    if (dtype == DType::F32) return reinterpret_cast<const float*>(data)[i];
    const uint16_t bits = reinterpret_cast<const uint16_t*>(data)[i];
    return dtype == DType::F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
  __device__ __forceinline__ void store(int64_t i, float v) const {
    if (dtype == DType::F32)
      reinterpret_cast<float*>(data)[i] = v;
    else
      reinterpret_cast<uint16_t*>(data)[i] =
          dtype == DType::F16 ? F16Number::encode(v) : BF16Number::encode(v);
  }
  // Numbers i and i + 1 in one access; their address is a multiple of both.
  __device__ __forceinline__ void store_pair(int64_t i, float v, float w) const {
    if (dtype == DType::F32)
      *reinterpret_cast<float2*>(reinterpret_cast<float*>(data) + i) = make_float2(v, w);
    else
      *reinterpret_cast<uint32_t*>(reinterpret_cast<uint16_t*>(data) + i) =
          dtype == DType::F16 ? F16Number::pack(v, w) : BF16Number::pack(v, w);
  }
  // Numbers i … i + 3 in one access; their address is a multiple of all four.
  __device__ __forceinline__ void load_quad(int64_t i, float (&v)[4]) const {
    if (dtype == DType::F32) {
      const float4 quad = *reinterpret_cast<const float4*>(reinterpret_cast<const float*>(data) + i);
      v[0] = quad.x, v[1] = quad.y, v[2] = quad.z, v[3] = quad.w;
      return;
    }
    const uint2 quad = *reinterpret_cast<const uint2*>(reinterpret_cast<const uint16_t*>(data) + i);
    const uint32_t pairs[2] = {quad.x, quad.y};
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < 4; ++j) {
      const auto bits = static_cast<uint16_t>(pairs[j / 2] >> j % 2 * 16);
      v[j] = dtype == DType::F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
    }
  }
  __device__ __forceinline__ void store_quad(int64_t i, const float (&v)[4]) const {
    if (dtype == DType::F32)
      *reinterpret_cast<float4*>(reinterpret_cast<float*>(data) + i) = make_float4(v[0], v[1], v[2], v[3]);
    else
      *reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(data) + i) =
          dtype == DType::F16 ? make_uint2(F16Number::pack(v[0], v[1]), F16Number::pack(v[2], v[3]))
                              : make_uint2(BF16Number::pack(v[0], v[1]), BF16Number::pack(v[2], v[3]));
  }
};

}  // namespace kotoba::cuda
