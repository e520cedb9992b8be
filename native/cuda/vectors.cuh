// Several neighbouring numbers in one access, for kernels whose time is that of memory; and how threads share
// out rows without dividing 64-bit numbers.
#pragma once

#include <algorithm>
#include <bit>

#include "launch.h"
#include "weight.cuh"

namespace kotoba::cuda {

// ---- numbers in vectors: kCount neighbours at an address that is a multiple of all of them (of 16 bytes
// where they are more). kCount 1 is for what is not so aligned.

__device__ __forceinline__ float f16_bits_to_f32(uint32_t bits) {
  return ptx::f16_to_f32(static_cast<uint16_t>(bits));
}

// The two numbers of a register, the first in its low half.
template <typename Number>
__device__ __forceinline__ void unpack(uint32_t pair, float& low, float& high) {
  if constexpr (std::is_same_v<Number, F16Number>) {
    low = f16_bits_to_f32(pair & 0xffff);
    high = f16_bits_to_f32(pair >> 16);
  } else {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
  }
}

template <typename Number, int kCount>
__device__ __forceinline__ void load_vector(float (&v)[kCount], const typename Number::Stored* from) {
  static_assert(kCount == 1 || std::is_same_v<Number, F32Number> || std::is_same_v<Number, F16Number> ||
                std::is_same_v<Number, BF16Number>);
  if constexpr (kCount == 1) {
    v[0] = Number::decode(*from);
  } else if constexpr (sizeof(typename Number::Stored) == 4) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
  } else if constexpr (kCount == 4) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(from);
    unpack<Number>(pairs.x, v[0], v[1]);
    unpack<Number>(pairs.y, v[2], v[3]);
  } else {
    static_assert(kCount == 8);
    const uint4 pairs = *reinterpret_cast<const uint4*>(from);
    unpack<Number>(pairs.x, v[0], v[1]);
    unpack<Number>(pairs.y, v[2], v[3]);
    unpack<Number>(pairs.z, v[4], v[5]);
    unpack<Number>(pairs.w, v[6], v[7]);
  }
}

template <typename Number, int kCount>
__device__ __forceinline__ void store_vector(typename Number::Stored* to, const float (&v)[kCount]) {
  if constexpr (kCount == 1) {
    *to = Number::encode(v[0]);
  } else if constexpr (sizeof(typename Number::Stored) == 4) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; i += 4)
      *reinterpret_cast<float4*>(to + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
  } else if constexpr (kCount == 4) {
    *reinterpret_cast<uint2*>(to) = make_uint2(Number::pack(v[0], v[1]), Number::pack(v[2], v[3]));
  } else {
    static_assert(kCount == 8);
    *reinterpret_cast<uint4*>(to) = make_uint4(Number::pack(v[0], v[1]), Number::pack(v[2], v[3]),
                                               Number::pack(v[4], v[5]), Number::pack(v[6], v[7]));
  }
}

// The same where the dtype is known at run time only: all threads take the same way.
template <int kCount>
__device__ __forceinline__ void store_vector(const Numbers& out, int64_t at, const float (&v)[kCount]) {
  if (out.dtype == DType::F32)
    store_vector<F32Number>(reinterpret_cast<float*>(out.data) + at, v);
  else if (out.dtype == DType::F16)
    store_vector<F16Number>(reinterpret_cast<uint16_t*>(out.data) + at, v);
  else
    store_vector<BF16Number>(reinterpret_cast<uint16_t*>(out.data) + at, v);
}

// Whether the rows of x may be read and written `count` numbers at a time: all of them, or none.
inline bool fits_vectors(const TensorView& x, int64_t count) {
  const int64_t bytes = std::min<int64_t>(16, count * info(x.dtype).bytes);
  return x.cols() % count == 0 && x.row_stride % count == 0 &&
         reinterpret_cast<uintptr_t>(x.data) % static_cast<uintptr_t>(bytes) == 0;
}

// ---- weight vectors, whose dtype is known at run time only

inline bool fits_quads(const Vector& v) {
  return is_activation_dtype(v.dtype) &&
         reinterpret_cast<uintptr_t>(v.data) % static_cast<uintptr_t>(4 * info(v.dtype).bytes) == 0;
}

// One number of `from`, or four from a multiple of 4 on; four only where fits_quads(from).
template <int kCount>
__device__ __forceinline__ void load_some(float (&v)[kCount], const Vector& from, int64_t c) {
  static_assert(kCount == 1 || kCount == 4);
  if constexpr (kCount == 1)
    v[0] = load(from, c);
  else if (from.dtype == DType::F32)
    load_vector<F32Number>(v, reinterpret_cast<const float*>(from.data) + c);
  else if (from.dtype == DType::F16)
    load_vector<F16Number>(v, reinterpret_cast<const uint16_t*>(from.data) + c);
  else
    load_vector<BF16Number>(v, reinterpret_cast<const uint16_t*>(from.data) + c);
}

// ---- division by a number that the host knows, of numbers below 2^31

class Divisor {
 public:
  Divisor() = default;
  // 1 ≤ divisor < 2^31
  explicit Divisor(int64_t divisor) : divisor_(static_cast<uint32_t>(divisor)) {
    const int bits = std::bit_width(divisor_ - 1);  // divisor ≤ 2^bits
    shift_ = 31 + bits;
    // Rounded up by less than the divisor, which changes no quotient of a number below 2^31.
    factor_ = static_cast<uint32_t>(((uint64_t{1} << shift_) + divisor_ - 1) / divisor_);
  }

  // quotient; n becomes the remainder
  __device__ __forceinline__ uint32_t divide(uint32_t& n) const {
    const uint32_t quotient = static_cast<uint32_t>(uint64_t{n} * factor_ >> shift_);
    n -= quotient * divisor_;
    return quotient;
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const { return divide(n); }

 private:
  uint32_t divisor_ = 1, factor_ = uint32_t{1} << 31;
  int shift_ = 31;
};

// ---- one result for every number of [rows, cols]: who takes which

constexpr int kTileThreadCount = 256;
constexpr int kVectorsAtOnce = 2;  // of a thread, under way together

// A block's threads take 2^lane_bits neighbouring vectors of a row, and as many rows as they reach.
class RowTiles {
 public:
  // `vector`: numbers that a thread takes at a time, a divisor of cols
  RowTiles(int64_t rows, int64_t cols, int64_t vector) {
    const auto vectors = static_cast<uint64_t>(cols / vector);
    while (lane_bits_ < 8 && (uint64_t{kVectorsAtOnce} << lane_bits_) < vectors) ++lane_bits_;
    const int64_t across = std::max<int64_t>(1, ceil_div(cols, (vector * kVectorsAtOnce) << lane_bits_));
    blocks_ = cols == 0 ? 0 : ceil_div(rows, kTileThreadCount >> lane_bits_) * across;
    across_ = Divisor(across);
  }
  int64_t blocks() const { return blocks_; }

  struct Place {
    int64_t row, col;  // of the thread's first vector
    int64_t step;      // columns to its next one
  };
  template <int kVector>
  __device__ __forceinline__ Place place() const {
    uint32_t chunk = blockIdx.x;
    const int64_t tile = across_.divide(chunk);
    const int thread = static_cast<int>(threadIdx.x), lane = thread & ((1 << lane_bits_) - 1);
    const int64_t first = (int64_t{chunk} * kVectorsAtOnce << lane_bits_) + lane;
    return {tile * (kTileThreadCount >> lane_bits_) + (thread >> lane_bits_), first * kVector,
            int64_t{kVector} << lane_bits_};
  }

 private:
  Divisor across_;
  int lane_bits_ = 0;
  int64_t blocks_ = 0;
};

// Dense tensors as a single row, so that rows of any length are shared out evenly.
inline TensorView flattened(TensorView x) {
  x.shape[0] = x.elements();
  x.rank = 1;
  x.row_stride = x.shape[0];
  return x;
}

}  // namespace kotoba::cuda
