// Chunks of the K types, the ternary ones and IQ4_XS; included by quant_parts.cuh.
#pragma once

#include "quant_parts.cuh"

namespace kotoba::cuda {

// Scales and minimums of sub-blocks s and s + 1, s = 2 (chunk / 2), in Q4_K and Q5_K: see k_scale(), k_min().
__device__ __forceinline__ void scales_q45k(const uint32_t (&raw)[4], int chunk, float unit, Scales& s) {
  const bool low = chunk < 4;
  const uint32_t scales = low ? raw[1] & 0x3f3f3f3fu : (raw[3] & 0x0f0f0f0fu) | (raw[1] >> 2 & 0x30303030u);
  const uint32_t mins =
      low ? raw[2] & 0x3f3f3f3fu : (raw[3] >> 4 & 0x0f0f0f0fu) | (raw[2] >> 2 & 0x30303030u);
  const int at = chunk / 2 % 2 * 2;
  const float d = low_half(raw[0]) * unit, dmin = -high_half(raw[0]);
  KOTOBA_UNROLL(unroll)
  for (int half = 0; half < 2; ++half) {
    s.scale[2 * half] = s.scale[2 * half + 1] = d * byte_float(scales, at + half);
    s.shift[2 * half] = s.shift[2 * half + 1] = dmin * byte_float(mins, at + half);
  }
}

// A chunk: 16 bytes of nibbles, half of sub-blocks s and s + 1. Codes are 8q.
template <>
struct Chunks<BlockQ4_K> : ChunksOf<BlockQ4_K, 0, 8, true> {
  static __device__ __forceinline__ int position(int chunk, int run) {
    return chunk / 2 * 64 + chunk % 2 * 16 + run / 2 * 32 + run % 2 * 8;
  }
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 4>(block, raw);
    load_words<kAlign, 4, 4>(block + 16 + 16 * chunk, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = raw[4 + run % 2 * 2 + i];
      c[i] = (run < 2 ? word << 3 : word >> 1) & 0x78787878u;
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    scales_q45k({raw[0], raw[1], raw[2], raw[3]}, chunk, 0.125f, s);
  }
};

// The same with the fifth bits, bit s of 16 bytes. Codes are 4q.
template <>
struct Chunks<BlockQ5_K> : ChunksOf<BlockQ5_K, 0, 12, true> {
  static __device__ __forceinline__ int position(int chunk, int run) {
    return Chunks<BlockQ4_K>::position(chunk, run);
  }
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 4>(block, raw);
    load_words<kAlign, 4, 4>(block + 48 + 16 * chunk, raw);
    load_words<kAlign, 8, 4>(block + 16 + chunk % 2 * 16, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int chunk, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = raw[4 + run % 2 * 2 + i], high = raw[8 + run % 2 * 2 + i];
      c[i] = ((run < 2 ? word << 2 : word >> 2) & 0x3c3c3c3cu) |
             (high >> (chunk / 2 * 2 + run / 2) & 0x01010101u) << 6;
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    scales_q45k({raw[0], raw[1], raw[2], raw[3]}, chunk, 0.25f, s);
  }
};

// In Q2_K, Q3_K, Q6_K and TQ2_0 a chunk is the four rows of 8 weights that share bytes: run r is at 32r of
// one half of the block.
__device__ __forceinline__ int row_position(int chunk, int run) {
  return chunk / 4 * 128 + run * 32 + chunk % 4 * 8;
}

// Codes are 32q.
template <>
struct Chunks<BlockQ2_K> : ChunksOf<BlockQ2_K, 0, 5, true> {
  static __device__ __forceinline__ int position(int chunk, int run) { return row_position(chunk, run); }
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 2>(block + 16 + 8 * chunk, raw);
    load_words<kAlign, 2, 2>(block + chunk / 4 * 8, raw);
    load_words<kAlign, 4, 1>(block + 80, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = (raw[i] >> 2 * run & 0x03030303u) << 5;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    const float d = low_half(raw[4]) * 0.03125f, dmin = -high_half(raw[4]);
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r) {
      const uint32_t both = raw[2 + r / 2] >> r % 2 * 16 >> chunk / 2 % 2 * 8;
      s.scale[r] = d * static_cast<float>(both & 15);
      s.shift[r] = dmin * static_cast<float>(both >> 4 & 15);
    }
  }
};

// Codes are 16q.
template <>
struct Chunks<BlockQ3_K> : ChunksOf<BlockQ3_K, 64, 8> {
  static __device__ __forceinline__ int position(int chunk, int run) { return row_position(chunk, run); }
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 2, true>(block + 32 + 8 * chunk, raw);
    load_words<2, 2, 2, true>(block + chunk % 4 * 8, raw);
    load_words<2, 4, 3>(block + 96, raw);
    raw[7] = load_u16(block + 108);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int chunk, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i)
      c[i] = (raw[i] >> 2 * run & 0x03030303u) << 4 | (raw[2 + i] >> (chunk / 4 * 4 + run) & 0x01010101u)
                                                          << 6;
  }
  // Sub-block 8 half + 2r + odd: see q3k_scale().
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    const float d = low_half(raw[7]) * 0.0625f;
    const int half = chunk / 4, odd = chunk / 2 % 2;
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r) {
      const uint32_t low = raw[4 + r / 2] >> r % 2 * 16 >> (8 * odd + 4 * half) & 15;
      const uint32_t high = raw[6] >> r % 2 * 16 >> (8 * odd + 4 * half) >> r / 2 * 2 & 3;
      s.scale[r] = d * static_cast<float>(static_cast<int>(low | high << 4) - 32);
    }
  }
};

// Codes are 2q.
template <>
struct Chunks<BlockQ6_K> : ChunksOf<BlockQ6_K, 64, 9> {
  static __device__ __forceinline__ int position(int chunk, int run) { return row_position(chunk, run); }
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    const std::byte* low = block + chunk / 4 * 64 + chunk % 4 * 8;
    load_words<2, 0, 2, true>(low, raw);
    load_words<2, 2, 2, true>(low + 32, raw);
    load_words<2, 4, 2, true>(block + 128 + 8 * chunk, raw);
    load_words<2, 6, 2>(block + 192 + chunk / 4 * 8, raw);
    raw[8] = load_u16(block + 208);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      const uint32_t low = raw[run % 2 * 2 + i], high = raw[4 + i];
      c[i] = ((run < 2 ? low << 1 : low >> 3) & 0x1e1e1e1eu) | (high >> 2 * run & 0x03030303u) << 5;
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    const float d = low_half(raw[8]) * 0.5f;
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r)
      s.scale[r] =
          d * static_cast<float>(static_cast<int8_t>(raw[6 + r / 2] >> r % 2 * 16 >> chunk / 2 % 2 * 8));
  }
};

// Codes are q + 128.
template <>
struct Chunks<BlockQ8_K> : ChunksOf<BlockQ8_K, 128, 9, false, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 8>(block + 4 + 32 * chunk, raw);
    load_words<kAlign, 8, 1>(block, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = raw[2 * run + i] ^ 0x80808080u;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, __uint_as_float(raw[8]));
  }
};

// Codes are 32q.
template <>
struct Chunks<BlockTQ2_0> : ChunksOf<BlockTQ2_0, 32, 3> {
  static __device__ __forceinline__ int position(int chunk, int run) { return row_position(chunk, run); }
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 2>(block + 8 * chunk, raw);
    raw[2] = load_u16(block + 64);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = (raw[i] >> 2 * run & 0x03030303u) << 5;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[2]) * 0.03125f);
  }
};

// Chunk c < 5 is digit c of bytes 0…31. Of the chunks 5, 6 and 7 the runs are: digits n and n + 1 of bytes
// 32…47 with n = 2 (c - 5), but the last two digits 0…3 of the four bytes of qh. Codes are 32 · digit.
template <>
struct Chunks<BlockTQ1_0> : ChunksOf<BlockTQ1_0, 32, 9> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    raw[5] = raw[6] = raw[7] = 0;
    if (chunk < 5)
      load_words<2, 0, 8>(block, raw);
    else
      load_words<2, 0, 5>(block + 32, raw);
    raw[8] = load_u16(block + 52);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int chunk, int run,
                                               uint32_t (&c)[2]) {
    const int digit = chunk < 5 ? chunk : 2 * (chunk - 5) + run / 2;
    const bool rest = chunk == 7 && run >= 2;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = chunk < 5 ? raw[2 * run + i] : rest ? raw[4] : raw[run % 2 * 2 + i];
      c[i] = digits(word, rest ? run % 2 * 2 + i : digit);
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[8]) * 0.03125f);
  }

 private:
  static __device__ __forceinline__ uint32_t digits(uint32_t bytes, int n) {
    const uint32_t power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
    uint32_t codes = 0;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4; ++i) codes |= ((bytes >> 8 * i & 255) * power & 255) * 3 >> 8 << (8 * i + 5);
    return codes;
  }
};

template <>
struct Chunks<BlockIQ4_XS> : ChunksOf<BlockIQ4_XS, 128, 6, false, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 4>(block + 8 + 16 * chunk, raw);
    load_words<kAlign, 4, 2>(block, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    constexpr ByteTable kTable = kIq4Codes;
    codes_table(kTable, raw, run, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    const uint32_t low = raw[5] >> 4 * chunk & 15, high = raw[4] >> 16 >> 2 * chunk & 3;
    set_all(s.scale, low_half(raw[4]) * static_cast<float>(static_cast<int>(low | high << 4) - 32));
  }
};

}  // namespace kotoba::cuda
