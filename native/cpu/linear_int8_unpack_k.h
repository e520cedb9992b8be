// unpack() for GGUF types with super-blocks of 256. For *_isa.cpp files only.
#pragma once

#include "linear_int8_unpack.h"

namespace kotoba::cpu::KOTOBA_ISA {

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

}  // namespace kotoba::cpu::KOTOBA_ISA
