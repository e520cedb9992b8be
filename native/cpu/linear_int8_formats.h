// From stored weights to panels: unpack() for each GGUF type that keeps the codes of its file, many rows at a
// time; all other types are decoded to float and quantised like Q8_0. For *_isa.cpp files only.
#pragma once

#include "../quant_decode.h"
#include "isa.h"
#include "linear_int8_activations.h"
#include "linear_int8_panel.h"

namespace kotoba::cpu::KOTOBA_ISA {

// Selects the unpack() of one block type: unpack(Tag, rows, offset of the block in bytes, out).
template <typename Block>
struct Tag {};

// ---- blocks of 32

// 32 columns: low, then high nibbles of 16 bytes.
KOTOBA_INLINE void put_nibbles(const PanelRows& out, const VI* q) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    put_codes(out, i, i_field(q[i], 0, 15));
    put_codes(out, i + 4, i_field(q[i], 4, 15));
  }
}

// Bits [4 * step, 4 * step + 4) of every lane as 16 or 0 in its four bytes.
KOTOBA_INLINE VI fifth_bits(VI bits, int step) {
  const VI four = i_and(i_right(bits, 4 * step), i_set(15));
  const VI spread = i_or(i_or(four, i_left(four, 7)), i_or(i_left(four, 14), i_left(four, 21)));
  return i_left(i_and(spread, i_set(0x01010101)), 4);
}
KOTOBA_INLINE void put_five_bits(const PanelRows& out, const VI* q, VI high) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    put_codes(out, i, i_or(i_field(q[i], 0, 15), fifth_bits(high, i)));
    put_codes(out, i + 4, i_or(i_field(q[i], 4, 15), fifth_bits(high, i + 4)));
  }
}

// 32 columns of signed bytes, to be used with offset 128.
KOTOBA_INLINE void put_signed(const PanelRows& out, int first_step, const Rows& rows, int64_t offset) {
  for (int half = 0; half < 2; ++half) {
    VI q[4];
    load_16_bytes(rows, offset + 16 * half, q);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      put_codes(out, first_step + 4 * half + i, i_xor(q[i], i_set(static_cast<int32_t>(0x80808080))));
  }
}

// F16 in the low and high half of every lane.
KOTOBA_INLINE VF low_half(VI a) { return i_low_half_to_float(a); }
KOTOBA_INLINE VF high_half(VI a) { return i_low_half_to_float(i_right(a, 16)); }

KOTOBA_INLINE void unpack(Tag<BlockQ4_0>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI q[4];
  load_16_bytes(rows, at + offsetof(BlockQ4_0, qs), q);
  put_nibbles(out, q);
  put_scale(out, 0, low_half(load_4_bytes(rows, at)));
}

KOTOBA_INLINE void unpack(Tag<BlockQ4_1>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI q[4];
  load_16_bytes(rows, at + offsetof(BlockQ4_1, qs), q);
  put_nibbles(out, q);
  const VI d_m = load_4_bytes(rows, at);
  put_scale(out, 0, low_half(d_m));
  put_low(out, 0, high_half(d_m));
}

KOTOBA_INLINE void unpack(Tag<BlockQ5_0>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI q[4];
  load_16_bytes(rows, at + offsetof(BlockQ5_0, qs), q);
  put_five_bits(out, q, load_4_bytes(rows, at + offsetof(BlockQ5_0, qh)));
  put_scale(out, 0, low_half(load_4_bytes(rows, at)));
}

KOTOBA_INLINE void unpack(Tag<BlockQ5_1>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI q[4];
  load_16_bytes(rows, at + offsetof(BlockQ5_1, qs), q);
  put_five_bits(out, q, load_4_bytes(rows, at + offsetof(BlockQ5_1, qh)));
  const VI d_m = load_4_bytes(rows, at);
  put_scale(out, 0, low_half(d_m));
  put_low(out, 0, high_half(d_m));
}

KOTOBA_INLINE void unpack(Tag<BlockQ8_0>, const Rows& rows, int64_t at, const PanelRows& out) {
  put_signed(out, 0, rows, at + offsetof(BlockQ8_0, qs));
  put_scale(out, 0, low_half(load_4_bytes(rows, at)));
}

KOTOBA_INLINE void unpack(Tag<BlockQ8_1>, const Rows& rows, int64_t at, const PanelRows& out) {
  put_signed(out, 0, rows, at + offsetof(BlockQ8_1, qs));
  put_scale(out, 0, low_half(load_4_bytes(rows, at)));
}

// The values of 4-bit codes, with the offset that makes them unsigned.
struct ValueTable {
  uint8_t values[16];
};
constexpr ValueTable with_offset(const int8_t (&values)[16], int offset) {
  ValueTable table{};
  for (int i = 0; i < 16; ++i) table.values[i] = static_cast<uint8_t>(values[i] + offset);
  return table;
}
constexpr int kIq4Offset = 128, kE2m1Offset = 12;
constexpr ValueTable kIq4Codes = with_offset(kIq4Values, kIq4Offset);
constexpr ValueTable kE2m1Codes = with_offset(kE2m1Doubled, kE2m1Offset);

KOTOBA_INLINE void put_looked_up(const PanelRows& out, int first_step, const ValueTable& table, const VI* q) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    put_codes(out, first_step + i, i_look_up(table.values, i_field(q[i], 0, 15)));
    put_codes(out, first_step + i + 4, i_look_up(table.values, i_field(q[i], 4, 15)));
  }
}

KOTOBA_INLINE void unpack(Tag<BlockIQ4_NL>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI q[4];
  load_16_bytes(rows, at + offsetof(BlockIQ4_NL, qs), q);
  put_looked_up(out, 0, kIq4Codes, q);
  put_scale(out, 0, low_half(load_4_bytes(rows, at)));
}

// One scale of each row, of which fn(row) is the value.
template <typename Fn>
KOTOBA_INLINE VF gather_scales(const Rows& rows, const Fn& fn) {
  float lanes[kLanes];
  for (int r = 0; r < kLanes; ++r) lanes[r] = fn(rows.at[r]);
  return v_load(lanes);
}

KOTOBA_INLINE void unpack(Tag<BlockMXFP4>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI q[4];
  load_16_bytes(rows, at + offsetof(BlockMXFP4, qs), q);
  put_looked_up(out, 0, kE2m1Codes, q);
  put_scale(out, 0, gather_scales(rows, [&](const std::byte* row) {
              return half_e8m0_to_f32(static_cast<uint8_t>(row[at]));
            }));
}

// Four scales for 16 columns each: 8 low, then 8 high nibbles.
KOTOBA_INLINE void unpack(Tag<BlockNVFP4>, const Rows& rows, int64_t at, const PanelRows& out) {
  for (int pair = 0; pair < 2; ++pair) {
    VI q[4];
    load_16_bytes(rows, at + offsetof(BlockNVFP4, qs) + 16 * pair, q);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int step = 8 * pair + i / 2 * 4 + i % 2;
      put_codes(out, step, i_look_up(kE2m1Codes.values, i_field(q[i], 0, 15)));
      put_codes(out, step + 2, i_look_up(kE2m1Codes.values, i_field(q[i], 4, 15)));
    }
  }
  for (int s = 0; s < 4; ++s)
    put_scale16(out, s, gather_scales(rows, [&](const std::byte* row) {
                  return half_ue4m3_to_f32(static_cast<uint8_t>(row[at + s]));
                }));
}

// ---- super-blocks of 256

// Scales and minimums of Q4_K and Q5_K from their first 16 bytes, the same for both: see k_scale(), k_min().
KOTOBA_INLINE void put_k_scales(const PanelRows& out, const Rows& rows, int64_t at) {
  VI head[4];
  load_16_bytes(rows, at, head);
  const VF d = low_half(head[0]), minus_dmin = v_sub(v_zero(), high_half(head[0]));
  const VI a = head[1], b = head[2], c = head[3];
  const auto put = [&](int s, VI scale, VI min) {
    put_scale(out, s, v_mul(d, i_to_float(scale)));
    put_low(out, s, v_mul(minus_dmin, i_to_float(min)));
  };
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    put(s, i_byte(i_field(a, 0, 63), s), i_byte(i_field(b, 0, 63), s));
    const VI scale = i_or(i_field(c, 0, 15), i_left(i_field(a, 6, 3), 4));
    const VI min = i_or(i_field(c, 4, 15), i_left(i_field(b, 6, 3), 4));
    put(s + 4, i_byte(scale, s), i_byte(min, s));
  }
}

KOTOBA_INLINE void unpack(Tag<BlockQ4_K>, const Rows& rows, int64_t at, const PanelRows& out) {
  for (int i = 0; i < 8; ++i) {
    VI q[4];
    load_16_bytes(rows, at + offsetof(BlockQ4_K, qs) + 16 * i, q);
    const int step = i / 2 * 16 + i % 2 * 4;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      put_codes(out, step + j, i_field(q[j], 0, 15));
      put_codes(out, step + j + 8, i_field(q[j], 4, 15));
    }
  }
  put_k_scales(out, rows, at);
}

KOTOBA_INLINE void unpack(Tag<BlockQ5_K>, const Rows& rows, int64_t at, const PanelRows& out) {
  for (int i = 0; i < 8; ++i) {
    VI q[4], high[4];
    load_16_bytes(rows, at + offsetof(BlockQ5_K, qs) + 16 * i, q);
    load_16_bytes(rows, at + offsetof(BlockQ5_K, qh) + i % 2 * 16, high);
    const int step = i / 2 * 16 + i % 2 * 4, bit = i / 2 * 2;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      put_codes(out, step + j, i_or(i_field(q[j], 0, 15), i_left(i_field(high[j], bit, 1), 4)));
      put_codes(out, step + j + 8, i_or(i_field(q[j], 4, 15), i_left(i_field(high[j], bit + 1, 1), 4)));
    }
  }
  put_k_scales(out, rows, at);
}

KOTOBA_INLINE void unpack(Tag<BlockIQ4_XS>, const Rows& rows, int64_t at, const PanelRows& out) {
  const VI head = load_4_bytes(rows, at);  // d, scales_h
  const VI scales_l = load_4_bytes(rows, at + offsetof(BlockIQ4_XS, scales_l));
  const VF d = low_half(head);
  for (int s = 0; s < 8; ++s) {
    VI q[4];
    load_16_bytes(rows, at + offsetof(BlockIQ4_XS, qs) + 16 * s, q);
    put_looked_up(out, 8 * s, kIq4Codes, q);
    const VI low = i_and(i_right(scales_l, 4 * s), i_set(15));
    const VI high = i_and(i_right(head, 16 + 2 * s), i_set(3));
    put_scale(out, s, v_mul(d, i_to_float(i_sub(i_or(low, i_left(high, 4)), i_set(32)))));
  }
}

KOTOBA_INLINE void unpack(Tag<BlockQ6_K>, const Rows& rows, int64_t at, const PanelRows& out) {
  for (int i = 0; i < 8; ++i) {  // the high nibbles are 64 columns, 16 steps, after the low ones
    VI q[4], high[4];
    load_16_bytes(rows, at + offsetof(BlockQ6_K, ql) + 16 * i, q);
    load_16_bytes(rows, at + offsetof(BlockQ6_K, qh) + i / 4 * 32 + i % 2 * 16, high);
    const int step = i / 4 * 32 + i % 4 * 4, bits = i % 4 / 2 * 2;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      put_codes(out, step + j, i_or(i_field(q[j], 0, 15), i_left(i_field(high[j], bits, 3), 4)));
      put_codes(out, step + j + 16, i_or(i_field(q[j], 4, 15), i_left(i_field(high[j], bits + 4, 3), 4)));
    }
  }
  const VF d = high_half(load_4_bytes(rows, at + offsetof(BlockQ6_K, d) - 2));
  VI scales[4];
  load_16_bytes(rows, at + offsetof(BlockQ6_K, scales), scales);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s)
    put_scale16(out, s, v_mul(d, i_to_float(i_signed_right(i_left(scales[s / 4], 24 - s % 4 * 8), 24))));
}

// Two bits of each of Q2_K's and Q3_K's 64 bytes: 32 columns of each of four bit positions, for both halves.
template <typename Put>
KOTOBA_INLINE void for_two_bit_codes(const Rows& rows, int64_t offset, const Put& put) {
  for (int i = 0; i < 4; ++i) {
    VI q[4];
    load_16_bytes(rows, offset + 16 * i, q);
    for (int p = 0; p < 4; ++p)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) put(i / 2 * 32 + p * 8 + i % 2 * 4 + j, i_field(q[j], 2 * p, 3));
  }
}

KOTOBA_INLINE void unpack(Tag<BlockQ2_K>, const Rows& rows, int64_t at, const PanelRows& out) {
  for_two_bit_codes(rows, at + offsetof(BlockQ2_K, qs), [&](int step, VI q) { put_codes(out, step, q); });
  const VI head = load_4_bytes(rows, at + offsetof(BlockQ2_K, d));
  const VF d = low_half(head), minus_dmin = v_sub(v_zero(), high_half(head));
  VI scales[4];
  load_16_bytes(rows, at + offsetof(BlockQ2_K, scales), scales);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) {
    put_scale16(out, s, v_mul(d, i_to_float(i_byte(i_field(scales[s / 4], 0, 15), s % 4))));
    put_low16(out, s, v_mul(minus_dmin, i_to_float(i_byte(i_field(scales[s / 4], 4, 15), s % 4))));
  }
}

KOTOBA_INLINE void unpack(Tag<BlockQ3_K>, const Rows& rows, int64_t at, const PanelRows& out) {
  VI third[8];  // bit p of the 32 bytes
  load_16_bytes(rows, at, third);
  load_16_bytes(rows, at + 16, third + 4);
  for_two_bit_codes(rows, at + offsetof(BlockQ3_K, qs), [&](int step, VI q) {
    put_codes(out, step, i_or(q, i_left(i_field(third[step % 8], step / 8, 1), 2)));
  });
  const VF d = high_half(load_4_bytes(rows, at + offsetof(BlockQ3_K, d) - 2));
  VI words[3];
  for (int i = 0; i < 3; ++i) words[i] = load_4_bytes(rows, at + offsetof(BlockQ3_K, scales) + 4 * i);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) {
    const VI low = i_field(words[s / 4 % 2], s / 8 * 4, 15), high = i_field(words[2], s / 4 * 2, 3);
    const VI scale = i_sub(i_byte(i_or(low, i_left(high, 4)), s % 4), i_set(32));
    put_scale16(out, s, v_mul(d, i_to_float(scale)));
  }
}

// ---- all rows and blocks

// `columns` <= kChunk of the rows.
using UnpackRows = void (*)(DType dtype, const Rows& rows, int64_t columns, PanelRows out);

// `scales` to each 32 columns.
KOTOBA_INLINE PanelRows from_block(const PanelRows& out, int64_t block, int scales) {
  return {out.codes + block * Panel::kBlockBytes, out.scales + block * scales * kRows,
          out.lows + block * scales * kRows};
}

template <typename Block, int kScales>
static void unpack_rows(DType, const Rows& rows, int64_t columns, PanelRows out) {
  for (int64_t i = 0; i < columns / Block::kWeights; ++i)
    unpack(Tag<Block>{}, rows, i * static_cast<int64_t>(sizeof(Block)),
           from_block(out, i * (Block::kWeights / kBlock), kScales));
}

// A block of floats after quantisation.
struct BlockFromFloat {
  float d;
  int8_t qs[kBlock];
};

static inline void unpack_rows_as_float(DType dtype, const Rows& rows, int64_t columns, PanelRows out) {
  constexpr int64_t kStage = 256;  // the largest block of any type
  BlockFromFloat stage[kLanes][kStage / kBlock];
  Rows staged;
  for (int64_t c = 0; c < columns; c += kStage) {
    const int64_t count = columns - c < kStage ? columns - c : kStage;
    const int blocks = static_cast<int>((count + kBlock - 1) / kBlock);
    for (int r = 0; r < kLanes; ++r) {
      float w[kStage];
      decode_row(dtype, rows.at[r] + dtype_bytes(dtype, c), w, count);
      for (int64_t i = count; i < blocks * kBlock; ++i) w[i] = 0;
      for (int b = 0; b < blocks; ++b) stage[r][b].d = quantise_block(w + b * kBlock, stage[r][b].qs);
      staged.at[r] = reinterpret_cast<const std::byte*>(stage[r]);
    }
    for (int b = 0; b < blocks; ++b) {
      const int64_t at = b * static_cast<int64_t>(sizeof(BlockFromFloat));
      const PanelRows block = from_block(out, c / kBlock + b, 1);
      put_signed(block, 0, staged, at + static_cast<int64_t>(offsetof(BlockFromFloat, qs)));
      put_scale(block, 0, (VF)load_4_bytes(staged, at));
    }
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
