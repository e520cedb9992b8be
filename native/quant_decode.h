// The portable decoders of GGUF's block types: decode_block(block, w) writes Block::kWeights floats.
//
// They are the definition that the SIMD decoders (cpu/decode_*_isa.cpp) and the CUDA kernels are tested
// against, and what a CPU without SIMD runs. Scales have at most 11 bits and every product below fits in 24,
// so that all values are exact up to the one addition of a minimum: any order of the factors gives the same
// bits. Every function is static: see cpu/kernels.h.
#pragma once

#include "float_formats.h"
#include "quant_blocks.h"
#include "quant_tables.h"

namespace kotoba {

KOTOBA_HD static inline uint16_t bits(Bits16 b) { return static_cast<uint16_t>(b.byte[0] | b.byte[1] << 8); }
KOTOBA_HD static inline uint32_t bits(Bits32 b) {
  return b.byte[0] | uint32_t{b.byte[1]} << 8 | uint32_t{b.byte[2]} << 16 | uint32_t{b.byte[3]} << 24;
}
KOTOBA_HD static inline float f16(Bits16 b) { return f16_to_f32(bits(b)); }

// Scale and minimum of sub-block s in Q4_K and Q5_K: 0…3 are the low 6 bits of bytes s and s + 4; 4…7 have
// their low nibbles in byte s + 4 and their high two bits on top of bytes s - 4 and s.
KOTOBA_HD static inline int k_scale(const uint8_t* scales, int s) {
  return s < 4 ? scales[s] & 63 : (scales[s + 4] & 15) | scales[s - 4] >> 6 << 4;
}
KOTOBA_HD static inline int k_min(const uint8_t* scales, int s) {
  return s < 4 ? scales[s + 4] & 63 : scales[s + 4] >> 4 | scales[s] >> 6 << 4;
}

// Scale of sub-block s in Q3_K.
KOTOBA_HD static inline int q3k_scale(const uint8_t* scales, int s) {
  return (scales[s % 8] >> s / 8 * 4 & 15) | (scales[8 + s % 4] >> s / 4 * 2 & 3) << 4;
}

// The 7 stored signs with the eighth that makes their number even; 0x6996 has the parity of i in bit i.
KOTOBA_HD static inline uint32_t even_signs(uint32_t seven) {
  return seven | (0x6996u >> ((seven ^ seven >> 4) & 15) & 1) << 7;
}

KOTOBA_HD static inline void decode_block(const BlockQ4_0& b, float* w) {
  const float d = f16(b.d);
  for (int i = 0; i < 16; ++i) {
    w[i] = d * ((b.qs[i] & 15) - 8);
    w[i + 16] = d * ((b.qs[i] >> 4) - 8);
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ4_1& b, float* w) {
  const float d = f16(b.d), m = f16(b.m);
  for (int i = 0; i < 16; ++i) {
    w[i] = d * (b.qs[i] & 15) + m;
    w[i + 16] = d * (b.qs[i] >> 4) + m;
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ5_0& b, float* w) {
  const float d = f16(b.d);
  const uint32_t high = bits(b.qh);
  for (int i = 0; i < 16; ++i) {
    w[i] = d * (static_cast<int>((b.qs[i] & 15) | (high >> i & 1) << 4) - 16);
    w[i + 16] = d * (static_cast<int>(b.qs[i] >> 4 | (high >> (i + 16) & 1) << 4) - 16);
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ5_1& b, float* w) {
  const float d = f16(b.d), m = f16(b.m);
  const uint32_t high = bits(b.qh);
  for (int i = 0; i < 16; ++i) {
    w[i] = d * static_cast<int>((b.qs[i] & 15) | (high >> i & 1) << 4) + m;
    w[i + 16] = d * static_cast<int>(b.qs[i] >> 4 | (high >> (i + 16) & 1) << 4) + m;
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ8_0& b, float* w) {
  const float d = f16(b.d);
  for (int i = 0; i < 32; ++i) w[i] = d * b.qs[i];
}

KOTOBA_HD static inline void decode_block(const BlockQ8_1& b, float* w) {
  const float d = f16(b.d);
  for (int i = 0; i < 32; ++i) w[i] = d * b.qs[i];
}

KOTOBA_HD static inline void decode_block(const BlockIQ4_NL& b, float* w) {
  const float d = f16(b.d);
  for (int i = 0; i < 16; ++i) {
    w[i] = d * kIq4Values[b.qs[i] & 15];
    w[i + 16] = d * kIq4Values[b.qs[i] >> 4];
  }
}

KOTOBA_HD static inline void decode_block(const BlockMXFP4& b, float* w) {
  const float d = half_e8m0_to_f32(b.e);
  for (int i = 0; i < 16; ++i) {
    w[i] = d * kE2m1Doubled[b.qs[i] & 15];
    w[i + 16] = d * kE2m1Doubled[b.qs[i] >> 4];
  }
}

KOTOBA_HD static inline void decode_block(const BlockNVFP4& b, float* w) {
  for (int s = 0; s < 4; ++s) {
    const float d = half_ue4m3_to_f32(b.d[s]);
    for (int i = 0; i < 8; ++i) {
      w[16 * s + i] = d * kE2m1Doubled[b.qs[8 * s + i] & 15];
      w[16 * s + i + 8] = d * kE2m1Doubled[b.qs[8 * s + i] >> 4];
    }
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ1_0& b, float* w) {
  const float d = f16(b.d);
  for (int i = 0; i < 128; ++i) w[i] = b.qs[i / 8] >> i % 8 & 1 ? d : -d;
}

KOTOBA_HD static inline void decode_block(const BlockQ2_0& b, float* w) {
  const float d = f16(b.d);
  for (int i = 0; i < 64; ++i) w[i] = d * ((b.qs[i / 4] >> i % 4 * 2 & 3) - 1);
}

KOTOBA_HD static inline void decode_block(const BlockQ2_K& b, float* w) {
  const float d = f16(b.d), dmin = f16(b.dmin);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * (b.scales[s] & 15), min = dmin * (b.scales[s] >> 4);
    const uint8_t* q = b.qs + s / 8 * 32 + s % 2 * 16;
    for (int i = 0; i < 16; ++i) w[16 * s + i] = scale * (q[i] >> s / 2 % 4 * 2 & 3) - min;
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ3_K& b, float* w) {
  const float d = f16(b.d);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * (q3k_scale(b.scales, s) - 32);
    const uint8_t *q = b.qs + s / 8 * 32 + s % 2 * 16, *high = b.hmask + s % 2 * 16;
    for (int i = 0; i < 16; ++i)
      w[16 * s + i] = scale * ((q[i] >> s / 2 % 4 * 2 & 3) + (high[i] >> s / 2 & 1) * 4 - 4);
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ4_K& b, float* w) {
  const float d = f16(b.d), dmin = f16(b.dmin);
  for (int s = 0; s < 8; ++s) {
    const float scale = d * k_scale(b.scales, s), min = dmin * k_min(b.scales, s);
    const uint8_t* q = b.qs + s / 2 * 32;
    for (int i = 0; i < 32; ++i) w[32 * s + i] = scale * (q[i] >> s % 2 * 4 & 15) - min;
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ5_K& b, float* w) {
  const float d = f16(b.d), dmin = f16(b.dmin);
  for (int s = 0; s < 8; ++s) {
    const float scale = d * k_scale(b.scales, s), min = dmin * k_min(b.scales, s);
    const uint8_t* q = b.qs + s / 2 * 32;
    for (int i = 0; i < 32; ++i)
      w[32 * s + i] = scale * ((q[i] >> s % 2 * 4 & 15) + (b.qh[i] >> s & 1) * 16) - min;
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ6_K& b, float* w) {
  const float d = f16(b.d);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * b.scales[s];
    const int half = s / 8, quarter = s / 2 % 4, i0 = s % 2 * 16;
    const uint8_t *low = b.ql + 64 * half + 32 * (quarter % 2) + i0, *high = b.qh + 32 * half + i0;
    for (int i = 0; i < 16; ++i)
      w[16 * s + i] = scale * ((low[i] >> quarter / 2 * 4 & 15) + (high[i] >> quarter * 2 & 3) * 16 - 32);
  }
}

KOTOBA_HD static inline void decode_block(const BlockQ8_K& b, float* w) {
  const float d = float_of_bits(bits(b.d));
  for (int i = 0; i < 256; ++i) w[i] = d * b.qs[i];
}

// The leading base-3 digit of byte * 3^n mod 256, less one.
KOTOBA_HD static inline int trit(uint8_t byte, int power) {
  return static_cast<uint8_t>(byte * power) * 3 >> 8;
}

KOTOBA_HD static inline void decode_block(const BlockTQ1_0& b, float* w) {
  const float d = f16(b.d);
  for (int n = 0, power = 1; n < 5; ++n, power *= 3) {
    for (int i = 0; i < 32; ++i) w[32 * n + i] = d * (trit(b.qs[i], power) - 1);
    for (int i = 0; i < 16; ++i) w[160 + 16 * n + i] = d * (trit(b.qs[32 + i], power) - 1);
    for (int i = 0; i < 4 && n < 4; ++i) w[240 + 4 * n + i] = d * (trit(b.qh[i], power) - 1);
  }
}

KOTOBA_HD static inline void decode_block(const BlockTQ2_0& b, float* w) {
  const float d = f16(b.d);
  for (int s = 0; s < 8; ++s)
    for (int i = 0; i < 32; ++i) w[32 * s + i] = d * ((b.qs[s / 4 * 32 + i] >> s % 4 * 2 & 3) - 1);
}

// w[i] = ±scale * byte i of `row`, negative where bit i of `signs` is set.
KOTOBA_HD static inline void decode_signed(uint64_t row, uint32_t signs, float scale, float* w,
                                           int count = 8) {
  for (int i = 0; i < count; ++i)
    w[i] = (signs >> i & 1 ? -scale : scale) * static_cast<int>(row >> 8 * i & 255);
}

KOTOBA_HD static inline void decode_block(const BlockIQ2_XXS& b, float* w) {
  const float d = f16(b.d);
  for (int g = 0; g < 32; ++g) {
    const uint32_t rest = bits(b.groups[g / 4].rest);
    const float scale = d * (2 * (rest >> 28) + 1) * 0.125f;
    decode_signed(kIq2xxsGrid.rows[b.groups[g / 4].index[g % 4]], even_signs(rest >> g % 4 * 7 & 127), scale,
                  w + 8 * g);
  }
}

KOTOBA_HD static inline void decode_block(const BlockIQ2_XS& b, float* w) {
  const float d = f16(b.d);
  for (int g = 0; g < 32; ++g) {
    const float scale = d * (2 * (b.scales[g / 4] >> g / 2 % 2 * 4 & 15) + 1) * 0.125f;
    const uint32_t q = bits(b.qs[g]);
    decode_signed(kIq2xsGrid.rows[q & 511], even_signs(q >> 9), scale, w + 8 * g);
  }
}

KOTOBA_HD static inline void decode_block(const BlockIQ2_S& b, float* w) {
  const float d = f16(b.d);
  for (int g = 0; g < 32; ++g) {
    const float scale = d * (2 * (b.scales[g / 4] >> g / 2 % 2 * 4 & 15) + 1) * 0.125f;
    const int row = b.qs[g] | (b.qh[g / 4] >> g % 4 * 2 & 3) << 8;
    decode_signed(kIq2sGrid.rows[row], b.signs[g], scale, w + 8 * g);
  }
}

KOTOBA_HD static inline void decode_block(const BlockIQ3_XXS& b, float* w) {
  const float d = f16(b.d);
  for (int g = 0; g < 32; ++g) {
    const uint32_t rest = bits(b.rest[g / 4]);
    const float scale = d * (2 * (rest >> 28) + 1) * 0.25f;
    const uint32_t signs = even_signs(rest >> g % 4 * 7 & 127);
    decode_signed(kIq3xxsGrid.rows[b.qs[2 * g]], signs, scale, w + 8 * g, 4);
    decode_signed(kIq3xxsGrid.rows[b.qs[2 * g + 1]], signs >> 4, scale, w + 8 * g + 4, 4);
  }
}

KOTOBA_HD static inline void decode_block(const BlockIQ3_S& b, float* w) {
  const float d = f16(b.d);
  for (int g = 0; g < 64; ++g) {
    const float scale = d * (2 * (b.scales[g / 16] >> g / 8 % 2 * 4 & 15) + 1);
    const int row = b.qs[g] | (b.qh[g / 8] >> g % 8 & 1) << 8;
    decode_signed(kIq3sGrid.rows[row], b.signs[g / 2] >> g % 2 * 4, scale, w + 4 * g, 4);
  }
}

// w[i] = scale * (signed byte i of `row` ± 1/8)
KOTOBA_HD static inline void decode_shifted(uint64_t row, bool negative, float scale, float* w) {
  for (int i = 0; i < 8; ++i)
    w[i] = scale * (static_cast<int8_t>(row >> 8 * i) + (negative ? -0.125f : 0.125f));
}

KOTOBA_HD static inline void decode_block(const BlockIQ1_S& b, float* w) {
  const float d = f16(b.d);
  for (int g = 0; g < 32; ++g) {
    const int high = bits(b.qh[g / 4]);
    const float scale = d * (2 * (high >> 12 & 7) + 1);
    decode_shifted(kIq1Grid.rows[b.qs[g] | (high >> g % 4 * 3 & 7) << 8], high >> 15, scale, w + 8 * g);
  }
}

// The F16 scale that IQ1_M keeps in the top nibbles of its four words of scales.
KOTOBA_HD static inline float iq1m_scale(const BlockIQ1_M& b) {
  int d = 0;
  for (int i = 0; i < 4; ++i) d |= bits(b.scales[i]) >> 12 << 4 * i;
  return f16_to_f32(static_cast<uint16_t>(d));
}

KOTOBA_HD static inline void decode_block(const BlockIQ1_M& b, float* w) {
  const float d = iq1m_scale(b);
  for (int g = 0; g < 32; ++g) {
    const float scale = d * (2 * (bits(b.scales[g / 8]) >> g / 2 % 4 * 3 & 7) + 1);
    const int high = b.qh[g / 2] >> g % 2 * 4;
    decode_shifted(kIq1Grid.rows[b.qs[g] | (high & 7) << 8], high & 8, scale, w + 8 * g);
  }
}

// Scale of sub-block s in IQ4_XS, without d.
KOTOBA_HD static inline int iq4xs_scale(const BlockIQ4_XS& b, int s) {
  return ((b.scales_l[s / 2] >> s % 2 * 4 & 15) | (bits(b.scales_h) >> 2 * s & 3) << 4) - 32;
}

KOTOBA_HD static inline void decode_block(const BlockIQ4_XS& b, float* w) {
  const float d = f16(b.d);
  for (int s = 0; s < 8; ++s) {
    const float scale = d * iq4xs_scale(b, s);
    for (int i = 0; i < 16; ++i) {
      w[32 * s + i] = scale * kIq4Values[b.qs[16 * s + i] & 15];
      w[32 * s + i + 16] = scale * kIq4Values[b.qs[16 * s + i] >> 4];
    }
  }
}

}  // namespace kotoba
