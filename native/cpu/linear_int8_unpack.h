// unpack() for GGUF types with blocks of 32 or 64: kLanes rows of one block from their file format to a
// panel. For *_isa.cpp files only.
#pragma once

#include "../quant_decode.h"
#include "linear_int8_panel.h"

namespace kotoba::cpu::KOTOBA_ISA {

// Selects the unpack() of one block type: unpack(Tag, rows, offset of the block in bytes, out).
template <typename Block>
struct Tag {};

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

constexpr int kSignedOffset = 128;

// 32 columns of signed bytes, made unsigned.
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

}  // namespace kotoba::cpu::KOTOBA_ISA
