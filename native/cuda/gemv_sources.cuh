// What gemv.cu multiplies: a row of weights of any type, in chunks that a lane reads at once. A chunk has
// kRuns runs of 8 consecutive weights; of run r,  Σ x w = add(factors, r, Σ x value, Σ x, 0). A lane's chunks
// are all at the same place of their blocks, which its own number tells.
#pragma once

#include "quant_parts.cuh"

namespace kotoba::cuda {

// v = numbers i … i + 7, by 16-byte loads.
__device__ __forceinline__ void load_eight(const Numbers& x, int64_t i, float (&v)[8]) {
  if (x.dtype == DType::F32) {
    const auto* from = reinterpret_cast<const float4*>(reinterpret_cast<const float*>(x.data) + i);
    const float4 low = from[0], high = from[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    return;
  }
  const uint4 eight = *reinterpret_cast<const uint4*>(reinterpret_cast<const uint16_t*>(x.data) + i);
  const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
  KOTOBA_UNROLL(unroll)
  for (int j = 0; j < 8; ++j) {
    const auto bits = static_cast<uint16_t>(words[j / 2] >> j % 2 * 16);
    v[j] = x.dtype == DType::F16 ? ptx::f16_to_f32(bits) : bf16_to_f32(bits);
  }
}

// ---- GGUF types. Values are codes as they come out of their bytes: what they are off by is put into the
// factor of Σ x, unless it is so large (wide codes) that digits would be lost.

template <typename Block>
struct BlockSource {
  using Parts = Chunks<Block>;
  using Factors = Scales;
  static constexpr int kRuns = kotoba::cuda::kRuns, kWords = Parts::kWords;
  static constexpr bool kSums = Parts::kShift || !Parts::kWide;

  static unsigned chunks(int64_t k) { return k / kChunkWeights; }
  static __device__ __forceinline__ int64_t run_start(unsigned chunk, int run) {
    return kotoba::cuda::run_start<Block>(chunk, run);
  }
  static __device__ __forceinline__ void load(const std::byte* row, unsigned chunk, unsigned lane, int64_t,
                                              bool, uint32_t (&raw)[kWords]) {
    Parts::load(block_of_chunk<Block>(row, chunk), chunk_in_block<Block>(lane), raw);
  }
  static __device__ __forceinline__ Factors factors(const uint32_t (&raw)[kWords], unsigned lane) {
    Scales s;
    Parts::scales(raw, chunk_in_block<Block>(lane), s);
    constexpr float kOff = kCodeOffset<false> + static_cast<float>(Parts::kBias);
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r) {
      if (Parts::kWide) continue;
      s.shift[r] = Parts::kShift ? fmaf(-kOff, s.scale[r], s.shift[r]) : -kOff * s.scale[r];
    }
    return s;
  }
  static __device__ __forceinline__ void values(const uint32_t (&raw)[kWords], unsigned lane, int run,
                                                float (&v)[8]) {
    uint32_t codes[2];
    Parts::codes(raw, chunk_in_block<Block>(lane), run, codes);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 8; ++i) {
      v[i] = code_float<Parts::kWide>(codes[i / 4], i % 4);
      if (Parts::kWide) v[i] -= kCodeOffset<true> + static_cast<float>(Parts::kBias);
    }
  }
  static __device__ __forceinline__ float add(const Factors& f, int run, float dot, float sum, float acc) {
    if (kSums) acc = fmaf(f.shift[run], sum, acc);
    return fmaf(f.scale[run], dot, acc);
  }
};

// ---- plain types. 32 chunks share 32 · 8 · kRuns weights: run r of the 32 lanes is consecutive.

template <typename Weight>
struct PlainSource {
  using Stored = typename Weight::Stored;
  struct Factors {};
  static constexpr int kRuns = sizeof(Stored) == 1 ? 4 : sizeof(Stored) == 2 ? 2 : 1;
  static constexpr int kBytes = sizeof(Stored) == 8 ? 4 : static_cast<int>(sizeof(Stored));  // as kept in raw
  static constexpr int kWords = kRuns * 2 * kBytes;
  static constexpr int kTogether = 32 * 8 * kRuns;  // weights
  static constexpr bool kSums = false;

  static unsigned chunks(int64_t k) { return (k + kTogether - 1) / kTogether * 32; }
  static __device__ __forceinline__ int64_t run_start(unsigned chunk, int run) {
    return int64_t{chunk / 32} * kTogether + run * 256 + chunk % 32 * 8;
  }
  static __device__ __forceinline__ void load(const std::byte* row, unsigned chunk, unsigned, int64_t k,
                                              bool aligned, uint32_t (&raw)[kWords]) {
    KOTOBA_UNROLL(unroll)
    for (int run = 0; run < kRuns; ++run) {
      const int64_t start = run_start(chunk, run);
      uint32_t words[2 * kBytes];
      load_run(reinterpret_cast<const Stored*>(row) + start, k - start, aligned, words);
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < 2 * kBytes; ++i) raw[run * 2 * kBytes + i] = words[i];
    }
  }
  static __device__ __forceinline__ Factors factors(const uint32_t (&)[kWords], unsigned) { return {}; }
  static __device__ __forceinline__ void values(const uint32_t (&raw)[kWords], unsigned, int run,
                                                float (&v)[8]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 8; ++i) {
      const uint32_t word = raw[run * 2 * kBytes + i * kBytes / 4];
      if constexpr (kBytes == 4)
        v[i] = __uint_as_float(word);
      else if constexpr (std::is_same_v<Weight, F16Number>)
        v[i] = ptx::f16_to_f32(static_cast<uint16_t>(word >> i % 2 * 16));
      else
        v[i] = Weight::decode(static_cast<Stored>(word >> i * kBytes % 4 * 8));
    }
  }
  static __device__ __forceinline__ float add(const Factors&, int, float dot, float, float acc) {
    return acc + dot;
  }

 private:
  // 8 weights, zeros from the `left`-th on.
  static __device__ __forceinline__ void load_run(const Stored* from, int64_t left, bool aligned,
                                                  uint32_t (&words)[2 * kBytes]) {
    if constexpr (sizeof(Stored) == 8) {
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < 8; ++i) words[i] = __float_as_uint(i < left ? Weight::decode(from[i]) : 0);
    } else if (aligned && left >= 8) {
      load_words<2 * kBytes >= 4 ? 16 : 8, 0, 2 * kBytes>(reinterpret_cast<const std::byte*>(from), words);
    } else {
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < 2 * kBytes; ++i) words[i] = 0;
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < 8; ++i) {
        uint32_t bits = 0;
        if (i < left) bits = bits_of(from[i]);
        words[i * kBytes / 4] |= bits << i * kBytes % 4 * 8;
      }
    }
  }
  static __device__ __forceinline__ uint32_t bits_of(float v) { return __float_as_uint(v); }
  static __device__ __forceinline__ uint32_t bits_of(uint16_t v) { return v; }
  static __device__ __forceinline__ uint32_t bits_of(uint8_t v) { return v; }
};

}  // namespace kotoba::cuda
