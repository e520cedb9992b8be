// A panel: kRows weight rows by up to kChunk columns as unsigned codes, laid out for the int8 kernels, to be
// used for all tokens while it lies in the cache. Formats fill it through PanelRows. For *_isa.cpp files
// only.
//
//   w = scale * (code - offset)   or   w = scale * code + low
#pragma once

#include "linear_int8_simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

#if defined(__AVX512F__)
constexpr int kVectors = 2;  // 16 registers hold 32 columns of a panel, which leaves 16 for the rest
#else
constexpr int kVectors = 1;
#endif
constexpr int kRows = kVectors * kLanes;
constexpr int64_t kChunk = 1024;  // columns

// codes [block][vector][step] vectors; scales and lows [block][vector][1 or 2 to a block] vectors.
struct Panel {
  static constexpr int64_t kBlocks = kChunk / kBlock;
  static constexpr int kBlockBytes = kVectors * kSteps * kStepBytes;
  alignas(64) uint8_t codes[kBlocks * kBlockBytes];
  alignas(64) float scales[kBlocks * 2 * kRows];
  alignas(64) float lows[kBlocks * 2 * kRows];
};

// kLanes rows of a panel from some block on. Indices count from there.
struct PanelRows {
  uint8_t* codes;
  float* scales;
  float* lows;
};

// Columns [4 * step, 4 * step + 4).
KOTOBA_INLINE void put_codes(const PanelRows& out, int step, VI codes) {
  i_store(out.codes + step / kSteps * Panel::kBlockBytes + step % kSteps * kStepBytes, codes);
}
// Scales of 32 columns.
KOTOBA_INLINE void put_scale(const PanelRows& out, int index, VF scale) {
  v_store(out.scales + index * kRows, scale);
}
KOTOBA_INLINE void put_low(const PanelRows& out, int index, VF low) {
  v_store(out.lows + index * kRows, low);
}
// Scales of 16 columns.
KOTOBA_INLINE void put_scale16(const PanelRows& out, int index, VF scale) {
  v_store(out.scales + index / 2 * 2 * kRows + index % 2 * kLanes, scale);
}
KOTOBA_INLINE void put_low16(const PanelRows& out, int index, VF low) {
  v_store(out.lows + index / 2 * 2 * kRows + index % 2 * kLanes, low);
}

// ---- stored rows

// Where kLanes rows begin.
struct Rows {
  const std::byte* at[kLanes];
};

// 16 bytes of each row, transposed: out[i] holds bytes [4i, 4i + 4), a lane for each row.
KOTOBA_INLINE void load_16_bytes(const Rows& rows, int64_t offset, VI* out) {
  VI row[4];  // in its 128-bit parts: rows i, i + 4, i + 8, i + 12
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) row[i] = i_load_parts(rows.at + i, offset);
  const VI a = i_low32(row[0], row[1]), b = i_low32(row[2], row[3]);
  const VI c = i_high32(row[0], row[1]), d = i_high32(row[2], row[3]);
  out[0] = i_low64(a, b);
  out[1] = i_high64(a, b);
  out[2] = i_low64(c, d);
  out[3] = i_high64(c, d);
}

// 4 bytes of each row.
KOTOBA_INLINE VI load_4_bytes(const Rows& rows, int64_t offset) {
  int32_t lanes[kLanes];
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) memcpy(&lanes[r], rows.at[r] + offset, 4);
  return i_load(lanes);
}

// (a >> shift) & mask of every byte; mask has at most 8 - shift bits.
KOTOBA_INLINE VI i_field(VI a, int shift, uint8_t mask) {
  return i_and(i_right(a, shift), i_set(mask * 0x01010101));
}
// Byte `index` of every lane.
KOTOBA_INLINE VI i_byte(VI a, int index) { return i_and(i_right(a, 8 * index), i_set(255)); }

}  // namespace kotoba::cpu::KOTOBA_ISA
