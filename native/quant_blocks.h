// GGUF's quantised formats as they lie in a file: one struct per type, its size proven.
//
// Everything is made of bytes, hence 1-aligned: tensors start wherever the file puts them. `d` is a block's
// scale and `w` a weight; codes are whole numbers q. Bit k of a field means weight k unless the comment says
// otherwise. The decoders are in quant_decode.h.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace kotoba {

struct Bits16 {  // little-endian: an F16 or 16 loose bits
  uint8_t byte[2];
};
struct Bits32 {  // little-endian: an F32 or 32 loose bits
  uint8_t byte[4];
};

// ---- blocks of 32 with one scale; nibble types keep weights 0…15 in the low and 16…31 in the high nibbles

struct BlockQ4_0 {  // w = d * (q - 8)
  static constexpr int kWeights = 32;
  Bits16 d;
  uint8_t qs[16];
};
struct BlockQ4_1 {  // w = d * q + m
  static constexpr int kWeights = 32;
  Bits16 d, m;
  uint8_t qs[16];
};
struct BlockQ5_0 {  // w = d * (q - 16)
  static constexpr int kWeights = 32;
  Bits16 d;
  Bits32 qh;  // fifth bits
  uint8_t qs[16];
};
struct BlockQ5_1 {  // w = d * q + m
  static constexpr int kWeights = 32;
  Bits16 d, m;
  Bits32 qh;  // fifth bits
  uint8_t qs[16];
};
struct BlockQ8_0 {  // w = d * q
  static constexpr int kWeights = 32;
  Bits16 d;
  int8_t qs[32];
};
struct BlockQ8_1 {  // w = d * q
  static constexpr int kWeights = 32;
  Bits16 d;
  Bits16 sum;  // d * sum(q): for dot products, not for weights
  int8_t qs[32];
};
struct BlockIQ4_NL {  // w = d * kIq4Values[q]
  static constexpr int kWeights = 32;
  Bits16 d;
  uint8_t qs[16];
};
struct BlockMXFP4 {  // OCP MX: w = 2^(e - 128) * kE2m1Doubled[q]
  static constexpr int kWeights = 32;
  uint8_t e;
  uint8_t qs[16];
};
struct BlockNVFP4 {  // four times 16 weights: w = d[s] / 2 * kE2m1Doubled[q], 8 low then 8 high nibbles
  static constexpr int kWeights = 64;
  uint8_t d[4];  // E4M3 without sign; 0x7f counts as 0
  uint8_t qs[32];
};
struct BlockQ1_0 {  // w = q ? d : -d
  static constexpr int kWeights = 128;
  Bits16 d;
  uint8_t qs[16];
};
struct BlockQ2_0 {  // w = d * (q - 1), four weights a byte in order
  static constexpr int kWeights = 64;
  Bits16 d;
  uint8_t qs[16];
};

// ---- K types: super-blocks of 256 in 8 or 16 sub-blocks with small integer scales

struct BlockQ2_K {  // 16 sub-blocks of 16: w = d * (scales[s] & 15) * q - dmin * (scales[s] >> 4)
  static constexpr int kWeights = 256;
  uint8_t scales[16];
  uint8_t qs[64];  // bits 2p, 2p + 1 of byte 32h + i are weight 128h + 32p + i
  Bits16 d, dmin;
};
struct BlockQ3_K {  // 16 sub-blocks of 16: w = d * (scale[s] - 32) * (q - 4)
  static constexpr int kWeights = 256;
  uint8_t hmask[32];   // bit p of byte i is the third bit of weight 32p + i
  uint8_t qs[64];      // low two bits, as in Q2_K
  uint8_t scales[12];  // 6 bits each: low nibbles in bytes 0…7, high two bits in bytes 8…11
  Bits16 d;
};
struct BlockQ4_K {  // 8 sub-blocks of 32: w = d * scale[s] * q - dmin * min[s]
  static constexpr int kWeights = 256;
  Bits16 d, dmin;
  uint8_t scales[12];  // 8 scales and 8 mins of 6 bits, see k_scale() and k_min()
  uint8_t qs[128];     // 32 low nibbles, then 32 high nibbles, per 32 bytes
};
struct BlockQ5_K {  // as Q4_K with 5-bit codes
  static constexpr int kWeights = 256;
  Bits16 d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];  // bit s of byte i is the fifth bit of weight 32s + i
  uint8_t qs[128];
};
struct BlockQ6_K {  // 16 sub-blocks of 16: w = d * scales[s] * (q - 32)
  static constexpr int kWeights = 256;
  uint8_t ql[128];  // per 64 bytes: low nibbles are weights 0…63 of a half, high nibbles 64…127
  uint8_t qh[64];   // upper two bits: bits 2p, 2p + 1 of byte 32h + i are weight 128h + 32p + i
  int8_t scales[16];
  Bits16 d;
};
struct BlockQ8_K {  // w = d * q
  static constexpr int kWeights = 256;
  Bits32 d;  // F32
  int8_t qs[256];
  Bits16 sums[16];  // of 16 codes each: for dot products
};

// ---- ternary types: w = d * (q - 1)

struct BlockTQ1_0 {  // five base-3 digits a byte, most significant first, byte = ceil(number * 256 / 243)
  static constexpr int kWeights = 256;
  uint8_t qs[48];  // digit n of bytes 0…31 is weight 32n + i; of bytes 32…47 weight 160 + 16n + i
  uint8_t qh[4];   // four digits: weight 240 + 4n + i
  Bits16 d;
};
struct BlockTQ2_0 {
  static constexpr int kWeights = 256;
  uint8_t qs[64];  // as in Q2_K
  Bits16 d;
};

// ---- IQ types: groups of 4 or 8 weights are a row of a codebook (quant_tables.h), with signs apart

struct BlockIQ2_XXS {  // w = d * (2s + 1) / 8 * ±grid
  static constexpr int kWeights = 256;
  Bits16 d;
  struct {
    uint8_t index[4];  // codebook rows
    Bits32 rest;       // four times 7 sign bits (the eighth makes their number even), then s, 4 bits
  } groups[8];         // of 32 weights
};
struct BlockIQ2_XS {  // w = d * (2s + 1) / 8 * ±grid
  static constexpr int kWeights = 256;
  Bits16 d;
  Bits16 qs[32];      // 9 bits of codebook row, 7 sign bits
  uint8_t scales[8];  // s: a nibble per 16 weights
};
struct BlockIQ2_S {  // w = d * (2s + 1) / 8 * ±grid
  static constexpr int kWeights = 256;
  Bits16 d;
  uint8_t qs[32];  // codebook row, low 8 bits
  uint8_t signs[32];
  uint8_t qh[8];      // codebook row, two high bits each
  uint8_t scales[8];  // s: a nibble per 16 weights
};
struct BlockIQ3_XXS {  // w = d * (2s + 1) / 4 * ±grid
  static constexpr int kWeights = 256;
  Bits16 d;
  uint8_t qs[64];  // codebook rows of 4 weights
  Bits32 rest[8];  // per 32 weights: four times 7 sign bits, then s, 4 bits
};
struct BlockIQ3_S {  // w = d * (2s + 1) * ±grid
  static constexpr int kWeights = 256;
  Bits16 d;
  uint8_t qs[64];  // codebook row of 4 weights, low 8 bits
  uint8_t qh[8];   // ninth bits
  uint8_t signs[32];
  uint8_t scales[4];  // s: a nibble per 32 weights
};
struct BlockIQ1_S {  // w = d * (2s + 1) * (grid ± 1/8)
  static constexpr int kWeights = 256;
  Bits16 d;
  uint8_t qs[32];  // codebook row, low 8 bits
  Bits16 qh[8];    // per 32 weights: four times 3 high bits, s (3 bits), sign of the 1/8
};
struct BlockIQ1_M {  // w = d * (2s + 1) * (grid ± 1/8)
  static constexpr int kWeights = 256;
  uint8_t qs[32];    // codebook row, low 8 bits
  uint8_t qh[16];    // per 8 weights a nibble: 3 high bits, sign of the 1/8
  Bits16 scales[4];  // four times s (3 bits per 16 weights) and a nibble of d, lowest nibble first
};
struct BlockIQ4_XS {  // 8 sub-blocks of 32: w = d * (scale[s] - 32) * kIq4Values[q]
  static constexpr int kWeights = 256;
  Bits16 d;
  Bits16 scales_h;      // two high bits of each scale
  uint8_t scales_l[4];  // four low bits
  uint8_t qs[128];      // per 16 bytes: 16 low nibbles, then 16 high nibbles
};

// clang-format off
#define KOTOBA_BLOCK_TYPES(X)                                                                                \
  X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q8_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(Q8_K) X(IQ2_XXS) \
  X(IQ2_XS) X(IQ3_XXS) X(IQ1_S) X(IQ4_NL) X(IQ3_S) X(IQ2_S) X(IQ4_XS) X(IQ1_M) X(TQ1_0) X(TQ2_0) X(MXFP4)    \
  X(NVFP4) X(Q1_0) X(Q2_0)
// clang-format on

#define X(name)                                                                                \
  static_assert(sizeof(Block##name) == info(DType::name).bytes && alignof(Block##name) == 1 && \
                    Block##name::kWeights == info(DType::name).block,                          \
                "GGUF wire format of " #name);
KOTOBA_BLOCK_TYPES(X)
#undef X

}  // namespace kotoba
