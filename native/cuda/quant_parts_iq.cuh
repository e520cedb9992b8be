// Chunks of the types with codebooks: IQ1, IQ2, IQ3. A chunk is 32 consecutive weights. Included by
// quant_parts.cuh.
#pragma once

#include "quant_parts.cuh"

namespace kotoba::cuda {

// 64 ± bytes of `row` (1…62), minus where bits 0…3 of `signs` are set.
__device__ __forceinline__ uint32_t signed_codes(uint32_t row, uint32_t signs) {
  const uint32_t ones = spread_bits(signs);
  return ((row ^ ones * 127) + ones) ^ 0x40404040u;
}
__device__ __forceinline__ void signed_codes(uint64_t row, uint32_t signs, uint32_t (&c)[2]) {
  c[0] = signed_codes(static_cast<uint32_t>(row), signs);
  c[1] = signed_codes(static_cast<uint32_t>(row >> 32), signs >> 4);
}

template <>
struct Chunks<BlockIQ2_XXS> : ChunksOf<BlockIQ2_XXS, 64, 3> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 2>(block + 2 + 8 * chunk, raw);
    raw[2] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    signed_codes(kIq2xxsGrid.rows[raw[0] >> 8 * run & 255], even_signs(raw[1] >> 7 * run & 127), c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[2]) * static_cast<float>(2 * (raw[1] >> 28) + 1) * 0.125f);
  }
};

// d · (2s + 1) / 8 with s a nibble for each half of a chunk.
__device__ __forceinline__ void scales_iq2(float d, uint32_t nibbles, Scales& s) {
  KOTOBA_UNROLL(unroll)
  for (int r = 0; r < kRuns; ++r)
    s.scale[r] = d * static_cast<float>(2 * (nibbles >> r / 2 * 4 & 15) + 1) * 0.125f;
}

template <>
struct Chunks<BlockIQ2_XS> : ChunksOf<BlockIQ2_XS, 64, 4> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 2, true>(block + 2 + 8 * chunk, raw);
    raw[2] = load_u16(block);
    raw[3] = load_u8(block + 66 + chunk);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    const uint32_t q = raw[run / 2] >> run % 2 * 16 & 0xffff;
    signed_codes(kIq2xsGrid.rows[q & 511], even_signs(q >> 9), c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    scales_iq2(low_half(raw[2]), raw[3], s);
  }
};

template <>
struct Chunks<BlockIQ2_S> : ChunksOf<BlockIQ2_S, 64, 5> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 1, true>(block + 2 + 4 * chunk, raw);
    load_words<2, 1, 1, true>(block + 34 + 4 * chunk, raw);
    raw[2] = load_u16(block);
    raw[3] = load_u8(block + 66 + chunk);
    raw[4] = load_u8(block + 74 + chunk);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    const uint32_t row = (raw[0] >> 8 * run & 255) | (raw[3] >> 2 * run & 3) << 8;
    signed_codes(kIq2sGrid.rows[row], raw[1] >> 8 * run, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    scales_iq2(low_half(raw[2]), raw[4], s);
  }
};

template <>
struct Chunks<BlockIQ3_XXS> : ChunksOf<BlockIQ3_XXS, 64, 4> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 2, true>(block + 2 + 8 * chunk, raw);
    load_words<2, 2, 1>(block + 66 + 4 * chunk, raw);
    raw[3] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    const uint32_t rows = raw[run / 2] >> run % 2 * 16, signs = even_signs(raw[2] >> 7 * run & 127);
    c[0] = signed_codes(kIq3xxsGrid.rows[rows & 255], signs);
    c[1] = signed_codes(kIq3xxsGrid.rows[rows >> 8 & 255], signs >> 4);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[3]) * static_cast<float>(2 * (raw[2] >> 28) + 1) * 0.25f);
  }
};

template <>
struct Chunks<BlockIQ3_S> : ChunksOf<BlockIQ3_S, 64, 6> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 2, true>(block + 2 + 8 * chunk, raw);
    load_words<2, 2, 1, true>(block + 74 + 4 * chunk, raw);
    raw[3] = load_u16(block);
    raw[4] = load_u8(block + 66 + chunk);
    raw[5] = load_u8(block + 106 + chunk / 2);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    const uint32_t rows = raw[run / 2] >> run % 2 * 16, high = raw[4] >> 2 * run, signs = raw[2] >> 8 * run;
    c[0] = signed_codes(kIq3sGrid.rows[(rows & 255) | (high & 1) << 8], signs);
    c[1] = signed_codes(kIq3sGrid.rows[(rows >> 8 & 255) | (high >> 1 & 1) << 8], signs >> 4);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    set_all(s.scale, low_half(raw[3]) * static_cast<float>(2 * (raw[5] >> chunk % 2 * 4 & 15) + 1));
  }
};

// 4 (8g ± 1) + 64 for the bytes g = -1, 0, 1 of `row`.
__device__ __forceinline__ void shifted_codes(uint64_t row, bool negative, uint32_t (&c)[2]) {
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 2; ++i) {
    const uint32_t from_0 =
        ((static_cast<uint32_t>(row >> 32 * i) & 0x03030303u) + 0x01010101u) & 0x03030303u;
    c[i] = (from_0 << 5) + (negative ? 0x1c1c1c1cu : 0x24242424u);
  }
}

template <>
struct Chunks<BlockIQ1_S> : ChunksOf<BlockIQ1_S, 64, 3> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<2, 0, 1, true>(block + 2 + 4 * chunk, raw);
    raw[1] = load_u16(block + 34 + 2 * chunk);
    raw[2] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    const uint32_t row = (raw[0] >> 8 * run & 255) | (raw[1] >> 3 * run & 7) << 8;
    shifted_codes(kIq1Grid.rows[row], raw[1] >> 15 != 0, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[2]) * static_cast<float>(2 * (raw[1] >> 12 & 7) + 1) * 0.03125f);
  }
};

template <>
struct Chunks<BlockIQ1_M> : ChunksOf<BlockIQ1_M, 64, 4> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<4, 0, 1>(block + 4 * chunk, raw);
    raw[1] = load_u16(block + 32 + 2 * chunk);
    load_words<kAlign, 2, 2>(block + 48, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    const uint32_t high = raw[1] >> 4 * run;
    shifted_codes(kIq1Grid.rows[(raw[0] >> 8 * run & 255) | (high & 7) << 8], (high & 8) != 0, c);
  }
  // d is in the top nibbles of the four words of 16 bits, as in iq1m_scale().
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    const float d = half_float((raw[2] >> 12 & 15) | (raw[2] >> 24 & 0xf0) | (raw[3] >> 4 & 0xf00) |
                               (raw[3] >> 16 & 0xf000)) *
                    0.03125f;
    const uint32_t words = chunk < 4 ? raw[2] : raw[3];
    const uint32_t own = words >> chunk / 2 % 2 * 16 >> chunk % 2 * 6;
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r) s.scale[r] = d * static_cast<float>(2 * (own >> r / 2 * 3 & 7) + 1);
  }
};

}  // namespace kotoba::cuda
