// Types of 256 weights: sub-blocks are fitted one by one, their scales rounded to small integers times a
// scale of the whole block, which is then fitted again to the codes that follow from the rounded scales. For
// *_isa.cpp files only.
#pragma once

#include "quantize_fit.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

constexpr int kSuperBlock = 256;
constexpr int kMostSubBlocks = 16;

// ---- w = d * scale[s] * q - dmin * min[s]

struct ShiftedBlock {
  Bits16 d, dmin;
  int scales[kMostSubBlocks], mins[kMostSubBlocks];
  int codes[kSuperBlock];
};

// The d and dmin that fit given codes best: two linear equations.
inline bool refit(const float* x, int width, const ShiftedBlock& b, float& d, float& dmin) {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int s = 0; s < kSuperBlock / width; ++s) {
    float q1 = 0, q2 = 0, xq = 0, x1 = 0;
    for (int i = s * width; i < (s + 1) * width; ++i) {
      const float q = static_cast<float>(b.codes[i]);
      q1 += q;
      q2 += q * q;
      xq += x[i] * q;
      x1 += x[i];
    }
    const double scale = b.scales[s], min = b.mins[s];
    aa += scale * scale * q2;
    ab -= scale * min * q1;
    bb += min * min * width;
    xa += scale * xq;
    xb -= min * x1;
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant <= 1e-12 * aa * bb) {
    if (aa <= 0) return false;
    d = static_cast<float>(xa / aa);
    return d > 0;
  }
  d = static_cast<float>((xa * bb - xb * ab) / determinant);
  dmin = static_cast<float>((xb * aa - xa * ab) / determinant);
  return d > 0 && dmin >= 0;
}

// Codes that follow from the rounded scales; their squared error.
inline float code_all(const float* x, int width, int highest, ShiftedBlock& b) {
  const float d = f16(b.d), dmin = f16(b.dmin), most = static_cast<float>(highest);
  float error = 0;
  for (int s = 0; s < kSuperBlock / width; ++s) {
    const float scale = d * static_cast<float>(b.scales[s]), offset = dmin * static_cast<float>(b.mins[s]);
    const float inverse = scale > 0 ? 1 / scale : 0;
    for (int i = s * width; i < (s + 1) * width; ++i) {
      const float q = whole(clamped((x[i] + offset) * inverse, 0, most));
      const float apart = x[i] - (scale * q - offset);
      b.codes[i] = static_cast<int>(q);
      error += apart * apart;
    }
  }
  return error;
}

// width: weights to a sub-block; most: the largest integer scale
inline ShiftedBlock fit_shifted(const float* x, int width, int highest, int most) {
  const int count = kSuperBlock / width;
  Shifted parts[kMostSubBlocks];
  float d = 0, dmin = 0;
  for (int s = 0; s < count; ++s) {
    parts[s] = fit_shift(x + s * width, width, highest);
    d = larger(d, parts[s].scale / static_cast<float>(most));
    dmin = larger(dmin, parts[s].offset / static_cast<float>(most));
  }
  ShiftedBlock best = {};
  float least = __builtin_inff();
  for (int round = 0; round < 4; ++round) {
    ShiftedBlock b = {};
    b.d = half(d);
    b.dmin = half(dmin);
    const float scale = f16(b.d), offset = f16(b.dmin);
    for (int s = 0; s < count; ++s) {
      b.scales[s] = scale > 0 ? code_of(parts[s].scale / scale, 0, most) : 0;
      b.mins[s] = offset > 0 ? code_of(parts[s].offset / offset, 0, most) : 0;
    }
    const float error = code_all(x, width, highest, b);
    if (error < least) {
      least = error;
      best = b;
    }
    if (!refit(x, width, b, d, dmin)) break;
  }
  return best;
}

// ---- w = d * scale[s] * at(code), scales with a sign

struct ScaledBlock {
  Bits16 d;
  int scales[kMostSubBlocks];
  int codes[kSuperBlock];
};

// fit(x, width): a sub-block's scale; code(v): the code nearest to v; at(code): what it stands for
template <typename Fit, typename Code, typename At>
inline ScaledBlock fit_scaled(const float* x, int width, int lowest, int highest, Fit fit, Code code, At at) {
  const int count = kSuperBlock / width;
  float parts[kMostSubBlocks];
  for (int s = 0; s < count; ++s) parts[s] = fit(x + s * width, width);
  const float far = farthest(parts, count);
  ScaledBlock best = {};
  if (far == 0) return best;
  float least = __builtin_inff();
  // The farthest scale may stand on either end of the integers.
  for (int end = 0; end < 2; ++end) {
    float d = far / static_cast<float>(end == 0 ? lowest : highest);
    for (int round = 0; round < 3; ++round) {
      ScaledBlock b = {};
      b.d = half(d);
      const float scale = f16(b.d);
      if (scale == 0) break;
      float error = 0, xa = 0, aa = 0;
      for (int s = 0; s < count; ++s) {
        b.scales[s] = code_of(parts[s] / scale, lowest, highest);
        const float integer = static_cast<float>(b.scales[s]), own = scale * integer;
        const float inverse = own != 0 ? 1 / own : 0;
        for (int i = s * width; i < (s + 1) * width; ++i) {
          b.codes[i] = code(x[i] * inverse);
          const float a = integer * static_cast<float>(at(b.codes[i])), apart = x[i] - scale * a;
          error += apart * apart;
          xa += x[i] * a;
          aa += a * a;
        }
      }
      if (error < least) {
        least = error;
        best = b;
      }
      if (aa == 0) break;
      d = xa / aa;
    }
  }
  return best;
}

// Codes from -half_range to half_range - 1.
inline ScaledBlock fit_integer_block(const float* x, int half_range, int lowest, int highest) {
  const auto fit = [=](const float* part, int count) {
    return fit_integers(part, count, -half_range, half_range - 1);
  };
  const auto code = [=](float v) { return code_of(v, -half_range, half_range - 1); };
  return fit_scaled(x, 16, lowest, highest, fit, code, [](int q) { return q; });
}

// ---- bits into their places

// 8 scales and 8 mins of 6 bits: see k_scale() and k_min() of quant_decode.h
inline void pack_k_scales(uint8_t* packed, const ShiftedBlock& b) {
  for (int s = 0; s < 4; ++s) {
    packed[s] = static_cast<uint8_t>(b.scales[s] | b.scales[s + 4] >> 4 << 6);
    packed[s + 4] = static_cast<uint8_t>(b.mins[s] | b.mins[s + 4] >> 4 << 6);
    packed[s + 8] = static_cast<uint8_t>((b.scales[s + 4] & 15) | (b.mins[s + 4] & 15) << 4);
  }
}

// Bits 2p, 2p + 1 of byte 32h + i are weight 128h + 32p + i.
inline void pack_pairs(uint8_t* qs, const int* codes, int shift) {
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 32; ++i) {
      int byte = 0;
      for (int p = 0; p < 4; ++p) byte |= (codes[128 * h + 32 * p + i] >> shift & 3) << 2 * p;
      qs[32 * h + i] = static_cast<uint8_t>(byte);
    }
}

// `half` low nibbles, then as many high nibbles, per `half` bytes.
inline void pack_nibbles(uint8_t* qs, const int* codes, int count, int half) {
  for (int i = 0; i < count / 2; ++i) {
    const int* at = codes + i / half * 2 * half + i % half;
    qs[i] = static_cast<uint8_t>((at[0] & 15) | (at[half] & 15) << 4);
  }
}

inline void encode(BlockQ2_K& out, const float* x) {
  const ShiftedBlock b = fit_shifted(x, 16, 3, 15);
  for (int s = 0; s < 16; ++s) out.scales[s] = static_cast<uint8_t>(b.scales[s] | b.mins[s] << 4);
  pack_pairs(out.qs, b.codes, 0);
  out.d = b.d;
  out.dmin = b.dmin;
}

inline void encode(BlockQ3_K& out, const float* x) {
  const ScaledBlock b = fit_integer_block(x, 4, -32, 31);
  int codes[kSuperBlock];
  memset(out.hmask, 0, sizeof out.hmask);
  memset(out.scales, 0, sizeof out.scales);
  for (int i = 0; i < kSuperBlock; ++i) {
    codes[i] = b.codes[i] + 4;
    out.hmask[i % 32] = static_cast<uint8_t>(out.hmask[i % 32] | codes[i] >> 2 << i / 32);
  }
  pack_pairs(out.qs, codes, 0);
  for (int s = 0; s < 16; ++s) {
    const int scale = b.scales[s] + 32;
    uint8_t &low = out.scales[s % 8], &high = out.scales[8 + s % 4];
    low = static_cast<uint8_t>(low | (scale & 15) << s / 8 * 4);
    high = static_cast<uint8_t>(high | scale >> 4 << s / 4 * 2);
  }
  out.d = b.d;
}

inline void encode(BlockQ4_K& out, const float* x) {
  const ShiftedBlock b = fit_shifted(x, 32, 15, 63);
  out.d = b.d;
  out.dmin = b.dmin;
  pack_k_scales(out.scales, b);
  pack_nibbles(out.qs, b.codes, kSuperBlock, 32);
}

inline void encode(BlockQ5_K& out, const float* x) {
  const ShiftedBlock b = fit_shifted(x, 32, 31, 63);
  out.d = b.d;
  out.dmin = b.dmin;
  pack_k_scales(out.scales, b);
  pack_nibbles(out.qs, b.codes, kSuperBlock, 32);
  for (int i = 0; i < 32; ++i) {
    int byte = 0;
    for (int s = 0; s < 8; ++s) byte |= b.codes[32 * s + i] >> 4 << s;
    out.qh[i] = static_cast<uint8_t>(byte);
  }
}

inline void encode(BlockQ6_K& out, const float* x) {
  const ScaledBlock b = fit_integer_block(x, 32, -128, 127);
  int codes[kSuperBlock];
  for (int i = 0; i < kSuperBlock; ++i) codes[i] = b.codes[i] + 32;
  pack_nibbles(out.ql, codes, kSuperBlock, 64);
  pack_pairs(out.qh, codes, 4);
  for (int s = 0; s < 16; ++s) out.scales[s] = static_cast<int8_t>(b.scales[s]);
  out.d = b.d;
}

inline void encode(BlockIQ4_XS& out, const float* x) {
  const ScaledBlock b = fit_scaled(x, 32, -32, 31, fit_iq4, nearest_iq4, [](int q) { return kIq4Values[q]; });
  out.d = b.d;
  uint32_t high = 0;
  memset(out.scales_l, 0, sizeof out.scales_l);
  for (int s = 0; s < 8; ++s) {
    const int scale = b.scales[s] + 32;
    out.scales_l[s / 2] = static_cast<uint8_t>(out.scales_l[s / 2] | (scale & 15) << s % 2 * 4);
    high |= static_cast<uint32_t>(scale >> 4) << 2 * s;
  }
  out.scales_h = bits16(high);
  pack_nibbles(out.qs, b.codes, kSuperBlock, 16);
}

}  // namespace
}  // namespace kotoba::cpu::KOTOBA_ISA
