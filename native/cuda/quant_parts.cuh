// GGUF blocks in parts, for kernels that share a block out over threads. A chunk is 32 weights of a block
// that are read from few, wide words: four runs of 8 consecutive weights. Of run r,
//   w[i] = scale[r] * (code[i] - kBias) + shift[r]
// has the bits of ../quant_decode.h, which defines the formats: the product is exact. Codes are bytes; they
// and their scales carry a power of two (a nibble q is the code 8q), so that few instructions make floats of
// them, see code_float().
//
// Chunks<Block> tells
//   kChunks                       chunks of a block
//   kBias, kShift, kWide          whether there are shifts; whether codes pass 127
//   kWords                        32-bit words that hold a chunk and its scales
//   position(chunk, run)          where a run starts in the block
//   load(block, chunk, raw)       reads the words; blocks lie at multiples of 16, or of the largest power of
//                                 two in their size
//   codes(raw, chunk, run, c)     8 codes in two words, the first in the lowest byte
//   scales(raw, chunk, s)
#pragma once

#include "quant_words.cuh"
#include "weight.cuh"

namespace kotoba::cuda {

struct Scales {
  float scale[4], shift[4];  // of the four runs
};

template <typename Block>
struct Chunks;

constexpr int kChunkWeights = 32;
constexpr int kRuns = 4, kRunWeights = 8;

// What most types share: runs follow each other.
template <typename Block, int kBias_, int kWords_, bool kShift_ = false, bool kWide_ = false>
struct ChunksOf {
  static constexpr int kAlign = block_alignment(sizeof(Block));  // bytes
  static constexpr int kChunks = Block::kWeights / kChunkWeights;
  static constexpr int kBias = kBias_, kWords = kWords_;
  static constexpr bool kShift = kShift_, kWide = kWide_;

  static __device__ __forceinline__ int position(int chunk, int run) {
    return kChunkWeights * chunk + kRunWeights * run;
  }
};

// code_float<kWide>(word, i) = kCodeOffset<kWide> + byte i of `word`: one instruction, the byte is put into
// the mantissa of a power of two.
template <bool kWide>
constexpr float kCodeOffset = kWide ? 32768.0f : 128.0f;
template <bool kWide>
__device__ __forceinline__ float code_float(uint32_t word, int i) {
  if (kWide) return __uint_as_float(__byte_perm(word, 0x47000000u, 0x7404u | static_cast<unsigned>(i) << 4));
  return __uint_as_float(__byte_perm(word, 0x43000000u, 0x7044u | static_cast<unsigned>(i) << 8));
}

__device__ __forceinline__ void set_all(float (&four)[4], float v) {
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 4; ++i) four[i] = v;
}

// Run r exactly, bit for bit.
template <typename Source>
__device__ __forceinline__ void decode_run(const uint32_t (&raw)[Source::kWords], int chunk, int run,
                                           const Scales& scales, float (&w)[kRunWeights]) {
  uint32_t codes[2];
  Source::codes(raw, chunk, run, codes);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kRunWeights; ++i) {
    const float code = code_float<Source::kWide>(codes[i / 4], i % 4) -
                       (kCodeOffset<Source::kWide> + static_cast<float>(Source::kBias));
    w[i] = Source::kShift ? fmaf(scales.scale[run], code, scales.shift[run]) : scales.scale[run] * code;
  }
}

// Where chunk c of a row lies, and which chunk of its block it is.
template <typename Block>
__device__ __forceinline__ const std::byte* block_of_chunk(const std::byte* row, unsigned chunk) {
  return ptx::opaque(row + chunk / Chunks<Block>::kChunks * uint64_t{sizeof(Block)});
}
template <typename Block>
__device__ __forceinline__ int chunk_in_block(unsigned chunk) {
  return static_cast<int>(chunk % Chunks<Block>::kChunks);
}
// The first weight of a run of chunk c of a row.
template <typename Block>
__device__ __forceinline__ int64_t run_start(unsigned chunk, int run) {
  return int64_t{chunk / Chunks<Block>::kChunks} * Block::kWeights +
         Chunks<Block>::position(chunk_in_block<Block>(chunk), run);
}

// Whether the blocks of w lie where load() wants them. Buffers and rows in them always do.
inline bool has_aligned_blocks(const TensorView& w) {
  return reinterpret_cast<uintptr_t>(w.data) %
             static_cast<uintptr_t>(block_alignment(static_cast<size_t>(info(w.dtype).bytes))) ==
         0;
}

}  // namespace kotoba::cuda

#include "quant_parts_32.cuh"
#include "quant_parts_iq.cuh"
#include "quant_parts_k.cuh"
