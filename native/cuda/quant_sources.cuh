// What quant_mma.cuh multiplies: a row of GGUF weights, in chunks. One kernel for each type that weights of
// image models come in, one for all others together, so that there is little to compile.
#pragma once

#include "quant_parts.cuh"

namespace kotoba::cuda {

// clang-format off
#define KOTOBA_COMMON_BLOCKS(X)                                                                         \
  X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS) \
  X(MXFP4) X(NVFP4)
#define KOTOBA_RARE_BLOCKS(X)                                                                          \
  X(Q8_1) X(Q8_K) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S) X(IQ1_S) X(IQ1_M) X(TQ1_0) X(TQ2_0) \
  X(Q1_0) X(Q2_0)
// clang-format on

// A type known at compile time. Of narrow codes, what they are off by is put into the shift, so that a weight
// is one fused operation: exact where the type has no shifts, else to the last digit of FP32.
template <typename Block>
struct CommonSource {
  static constexpr bool kFillsRegisters =
      std::is_same_v<Block, BlockQ5_K> || std::is_same_v<Block, BlockQ6_K>;
  using Parts = Chunks<Block>;
  static constexpr int kWords = Parts::kWords;
  static constexpr float kOff = kCodeOffset<Parts::kWide> + static_cast<float>(Parts::kBias);

  __device__ __forceinline__ explicit CommonSource(DType) {}
  __device__ __forceinline__ int64_t run_start(unsigned chunk, int run) const {
    return kotoba::cuda::run_start<Block>(chunk, run);
  }
  __device__ __forceinline__ void load(const std::byte* row, unsigned chunk, uint32_t (&raw)[kWords]) const {
    Parts::load(block_of_chunk<Block>(row, chunk), chunk_in_block<Block>(chunk), raw);
  }
  __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], unsigned chunk, Scales& s) const {
    static_assert(!(Parts::kWide && Parts::kShift));
    Parts::scales(raw, chunk_in_block<Block>(chunk), s);
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r)
      if (!Parts::kWide)
        s.shift[r] = Parts::kShift ? fmaf(-kOff, s.scale[r], s.shift[r]) : -kOff * s.scale[r];
  }
  __device__ __forceinline__ void values(const uint32_t (&raw)[kWords], unsigned chunk, int run,
                                         const Scales& s, float (&w)[kRunWeights]) const {
    uint32_t codes[2];
    Parts::codes(raw, chunk_in_block<Block>(chunk), run, codes);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kRunWeights; ++i) {
      const float code = code_float<Parts::kWide>(codes[i / 4], i % 4);
      w[i] = Parts::kWide ? s.scale[run] * (code - kOff) : fmaf(s.scale[run], code, s.shift[run]);
    }
  }
};

// A type known at run time.
struct RareSource {
  static constexpr int kWords = 9;

  __device__ __forceinline__ explicit RareSource(DType type) : type_(type) {}
  __device__ __forceinline__ int64_t run_start(unsigned chunk, int run) const {
    int64_t start = 0;
    dispatch([&]<typename Block>() { start = kotoba::cuda::run_start<Block>(chunk, run); });
    return start;
  }
  __device__ __forceinline__ void load(const std::byte* row, unsigned chunk, uint32_t (&raw)[kWords]) const {
    dispatch([&]<typename Block>() {
      uint32_t own[Chunks<Block>::kWords];
      Chunks<Block>::load(block_of_chunk<Block>(row, chunk), chunk_in_block<Block>(chunk), own);
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < Chunks<Block>::kWords; ++i) raw[i] = own[i];
    });
  }
  __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], unsigned chunk, Scales& s) const {
    dispatch([&]<typename Block>() {
      Chunks<Block>::scales(first_of<Block>(raw).words, chunk_in_block<Block>(chunk), s);
    });
  }
  __device__ __forceinline__ void values(const uint32_t (&raw)[kWords], unsigned chunk, int run,
                                         const Scales& s, float (&w)[kRunWeights]) const {
    dispatch([&]<typename Block>() {
      static_assert(!Chunks<Block>::kShift);
      decode_run<Chunks<Block>>(first_of<Block>(raw).words, chunk_in_block<Block>(chunk), run, s, w);
    });
  }

 private:
  template <typename Block>
  struct Words {
    uint32_t words[Chunks<Block>::kWords];
  };
  template <typename Block>
  static __device__ __forceinline__ Words<Block> first_of(const uint32_t (&raw)[kWords]) {
    static_assert(Chunks<Block>::kWords <= kWords);
    Words<Block> first;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < Chunks<Block>::kWords; ++i) first.words[i] = raw[i];
    return first;
  }
  template <typename F>
  __device__ __forceinline__ void dispatch(F f) const {
    switch (type_) {
#define X(name)     \
  case DType::name: \
    return f.template operator()<Block##name>();
      KOTOBA_RARE_BLOCKS(X)
#undef X
      default:
        return;
    }
  }

  DType type_;
};

// f.template operator()<Source>()
template <typename F>
void dispatch_source(DType type, F f) {
  switch (type) {
#define X(name)     \
  case DType::name: \
    return f.template operator()<CommonSource<Block##name>>();
    KOTOBA_COMMON_BLOCKS(X)
#undef X
    default:
      return f.template operator()<RareSource>();
  }
}

}  // namespace kotoba::cuda
