// Chunks of the types with one scale for 16 to 128 weights; included by quant_parts.cuh.
#pragma once

#include "quant_parts.cuh"

namespace kotoba::cuda {

// d, then 16 bytes of nibbles: low ones first. Codes are 8q.
template <>
struct Chunks<BlockQ4_0> : ChunksOf<BlockQ4_0, 64, 5> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<alignment_at(kAlign, 2), 0, 4>(block + 2, raw);
    raw[4] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = raw[run % 2 * 2 + i];
      c[i] = (run < 2 ? word << 3 : word >> 1) & 0x78787878u;
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[4]) * 0.125f);
  }
};

template <>
struct Chunks<BlockQ4_1> : ChunksOf<BlockQ4_1, 0, 5, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 5>(block, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = raw[1 + run % 2 * 2 + i];
      c[i] = (run < 2 ? word << 3 : word >> 1) & 0x78787878u;
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[0]) * 0.125f);
    set_all(s.shift, high_half(raw[0]));
  }
};

// Codes are 4q: nibbles as above, with the fifth bits of run r in byte r of qh.
__device__ __forceinline__ void codes_q5(const uint32_t* nibbles, uint32_t high, int run, uint32_t (&c)[2]) {
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 2; ++i) {
    const uint32_t word = nibbles[run % 2 * 2 + i];
    c[i] = ((run < 2 ? word << 2 : word >> 2) & 0x3c3c3c3cu) | spread_bits(high >> 8 * run >> 4 * i) << 6;
  }
}

template <>
struct Chunks<BlockQ5_0> : ChunksOf<BlockQ5_0, 64, 6> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<alignment_at(kAlign, 2), 0, 5>(block + 2, raw);
    raw[5] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    codes_q5(raw + 1, raw[0], run, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[5]) * 0.25f);
  }
};

template <>
struct Chunks<BlockQ5_1> : ChunksOf<BlockQ5_1, 0, 6, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 6>(block, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    codes_q5(raw + 2, raw[1], run, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[0]) * 0.25f);
    set_all(s.shift, high_half(raw[0]));
  }
};

// Codes are q + 128.
template <>
struct Chunks<BlockQ8_0> : ChunksOf<BlockQ8_0, 128, 9, false, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<alignment_at(kAlign, 2), 0, 8>(block + 2, raw);
    raw[8] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = raw[2 * run + i] ^ 0x80808080u;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[8]));
  }
};

template <>
struct Chunks<BlockQ8_1> : ChunksOf<BlockQ8_1, 128, 9, false, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 9>(block, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = raw[1 + 2 * run + i] ^ 0x80808080u;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[0]));
  }
};

// Codes of run r of the types with a table of 16 values and 16 bytes of nibbles in words[0…3].
__device__ __forceinline__ void codes_table(const ByteTable& table, const uint32_t* words, int run,
                                            uint32_t (&c)[2]) {
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 2; ++i) {
    uint32_t low, high;
    look_up(table, words[run % 2 * 2 + i], low, high);
    c[i] = run < 2 ? low : high;
  }
}
constexpr ByteTable kIq4Codes = make_table(kIq4Values, 1, 128);
constexpr ByteTable kFp4Codes = make_table(kE2m1Doubled, 4, 64);

template <>
struct Chunks<BlockIQ4_NL> : ChunksOf<BlockIQ4_NL, 128, 5, false, true> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<alignment_at(kAlign, 2), 0, 4>(block + 2, raw);
    raw[4] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    constexpr ByteTable kTable = kIq4Codes;
    codes_table(kTable, raw, run, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[4]));
  }
};

template <>
struct Chunks<BlockMXFP4> : ChunksOf<BlockMXFP4, 64, 5> {
  static __device__ __forceinline__ void load(const std::byte* block, int, uint32_t (&raw)[kWords]) {
    load_words<1, 0, 4>(block + 1, raw);
    raw[4] = load_u8(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    constexpr ByteTable kTable = kFp4Codes;
    codes_table(kTable, raw, run, c);
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, half_e8m0_to_f32(static_cast<uint8_t>(raw[4])) * 0.25f);
  }
};

// A chunk is two of the four groups of 16: 8 low, then 8 high nibbles of 8 bytes.
template <>
struct Chunks<BlockNVFP4> : ChunksOf<BlockNVFP4, 64, 5> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<kAlign, 0, 4>(block + 4 + 16 * chunk, raw);
    load_words<kAlign, 4, 1>(block, raw);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    constexpr ByteTable kTable = kFp4Codes;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) {
      uint32_t low, high;
      look_up(kTable, raw[run / 2 * 2 + i], low, high);
      c[i] = run % 2 == 0 ? low : high;
    }
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int chunk, Scales& s) {
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRuns; ++r)
      s.scale[r] = half_ue4m3_to_f32(static_cast<uint8_t>(raw[4] >> 16 * chunk >> r / 2 * 8)) * 0.25f;
  }
};

// Codes are 64q: 0 and 64 stand for -d and d.
template <>
struct Chunks<BlockQ1_0> : ChunksOf<BlockQ1_0, 32, 2> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<alignment_at(kAlign, 2), 0, 1>(block + 2 + 4 * chunk, raw);
    raw[1] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = spread_bits(raw[0] >> 8 * run >> 4 * i) << 6;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[1]) * 0.03125f);
  }
};

// Codes are 32q.
template <>
struct Chunks<BlockQ2_0> : ChunksOf<BlockQ2_0, 32, 3> {
  static __device__ __forceinline__ void load(const std::byte* block, int chunk, uint32_t (&raw)[kWords]) {
    load_words<alignment_at(kAlign, 2), 0, 2>(block + 2 + 8 * chunk, raw);
    raw[2] = load_u16(block);
  }
  static __device__ __forceinline__ void codes(const uint32_t (&raw)[kWords], int, int run,
                                               uint32_t (&c)[2]) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2; ++i) c[i] = spread_pairs(raw[run / 2] >> run % 2 * 16 >> 8 * i) << 5;
  }
  static __device__ __forceinline__ void scales(const uint32_t (&raw)[kWords], int, Scales& s) {
    set_all(s.scale, low_half(raw[2]) * 0.03125f);
  }
};

}  // namespace kotoba::cuda
