// Scales that bring a group of weights closest to small integers, in the sense of least squares. Candidates
// are tried side by side, one in each lane. For *_isa.cpp files only.
#pragma once

#include "../quant_decode.h"
#include "isa.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

constexpr int kCandidates = 32;
constexpr int kMostInGroup = 32;  // weights

inline float smaller(float a, float b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }
inline float magnitude(float a) { return a < 0 ? -a : a; }

// To the nearest whole number, ties to even; |v| < 2^22.
inline float whole(float v) { return (v + 0x1.8p23f) - 0x1.8p23f; }
inline float clamped(float v, float lowest, float highest) { return smaller(larger(v, lowest), highest); }
inline int code_of(float v, int lowest, int highest) {
  return static_cast<int>(whole(clamped(v, static_cast<float>(lowest), static_cast<float>(highest))));
}

// The value farthest from 0, with its sign.
inline float farthest(const float* x, int count) {
  float far = 0;
  for (int i = 0; i < count; ++i)
    if (magnitude(x[i]) > magnitude(far)) far = x[i];
  return far;
}

// ---- to F16 and BF16, to the nearest, ties to even

inline Bits16 bits16(uint32_t bits) {
  return {{static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8)}};
}

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline Bits16 half(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return bits16(sign | 0x7e00);
  if (rest >= 0x477ff000) return bits16(sign | 0x7c00);  // 65520 and more
  // Below 2^-14: a multiple of 2^-24; adding 0.5 leaves it, rounded, in the last bits.
  if (rest < 0x38800000) return bits16(sign | (bits_of(float_of_bits(rest) + 0.5f) - 0x3f000000));
  return bits16(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

inline Bits16 bfloat(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return bits16(bits >> 16 | 0x40);
  return bits16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// ---- x ≈ scale * at(q): the scale that fits best, of those near the one that puts the farthest value on
// either end of the codes

// nearest(v): what the code nearest to v stands for
template <typename Nearest>
inline float fit_scale(const float* x, int count, float lowest, float highest, float step, Nearest nearest) {
  const float far = farthest(x, count);
  if (far == 0) return 0;
  float inverse[kCandidates], xq[kCandidates] = {}, qq[kCandidates] = {};
  for (int c = 0; c < kCandidates; ++c) {
    const float end = c < kCandidates / 2 ? lowest : highest;
    inverse[c] = (end + step * static_cast<float>(c % (kCandidates / 2) - kCandidates / 4)) / far;
  }
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < kCandidates; ++c) {
      const float q = nearest(x[i] * inverse[c]);
      xq[c] += x[i] * q;
      qq[c] += q * q;
    }
  float best = 0, most = 0;
  for (int c = 0; c < kCandidates; ++c) {
    if (qq[c] <= 0 || xq[c] * xq[c] / qq[c] <= most) continue;
    most = xq[c] * xq[c] / qq[c];
    best = xq[c] / qq[c];
  }
  return best;
}

inline float fit_integers(const float* x, int count, int lowest, int highest) {
  const float low = static_cast<float>(lowest), high = static_cast<float>(highest);
  return fit_scale(x, count, low, high, 0.15f, [=](float v) { return whole(clamped(v, low, high)); });
}

// The number of kIq4Values that is nearest to v, as a float.
inline float nearest_iq4_value(float v) {
  float value = kIq4Values[0];
  for (int i = 1; i < 16; ++i) {
    const float middle = 0.5f * static_cast<float>(kIq4Values[i - 1] + kIq4Values[i]);
    value += v > middle ? static_cast<float>(kIq4Values[i] - kIq4Values[i - 1]) : 0.0f;
  }
  return value;
}
inline int nearest_iq4(float v) {
  int code = 0;
  for (int i = 1; i < 16; ++i) code += v > 0.5f * static_cast<float>(kIq4Values[i - 1] + kIq4Values[i]);
  return code;
}

inline float fit_iq4(const float* x, int count) {
  return fit_scale(x, count, kIq4Values[0], kIq4Values[15], 2.0f, nearest_iq4_value);
}

// ---- x ≈ scale * q - offset, 0 <= q <= highest, scale and offset >= 0

struct Shifted {
  float scale, offset;
};

// Ranges a little narrower and wider than the values'; for each, codes by rounding, then the best scale and
// offset for these codes, twice.
inline Shifted fit_shift(const float* x, int count, int highest) {
  float low = 0, high = 0, sum_x = 0;
  for (int i = 0; i < count; ++i) {
    low = smaller(low, x[i]);
    high = i == 0 ? x[i] : larger(high, x[i]);
    sum_x += x[i];
  }
  if (high <= low) return {0, -low};
  const float most = static_cast<float>(highest), n = static_cast<float>(count);
  float scale[kCandidates], offset[kCandidates];
  for (int c = 0; c < kCandidates; ++c) {
    scale[c] = (high - low) / (most + 0.05f * static_cast<float>(c - kCandidates * 2 / 3));
    offset[c] = -low;
  }
  Shifted best = {(high - low) / most, -low};
  float least = __builtin_inff();
  for (int round = 0; round < 3; ++round) {
    float inverse[kCandidates], q1[kCandidates] = {}, q2[kCandidates] = {}, xq[kCandidates] = {},
                                error[kCandidates] = {};
    for (int c = 0; c < kCandidates; ++c) inverse[c] = 1 / scale[c];
    for (int i = 0; i < count; ++i)
      for (int c = 0; c < kCandidates; ++c) {
        const float q = whole(clamped((x[i] + offset[c]) * inverse[c], 0, most));
        const float apart = x[i] - (scale[c] * q - offset[c]);
        error[c] += apart * apart;
        q1[c] += q;
        q2[c] += q * q;
        xq[c] += x[i] * q;
      }
    for (int c = 0; c < kCandidates; ++c) {
      if (error[c] < least) {
        least = error[c];
        best = {scale[c], offset[c]};
      }
      const float determinant = n * q2[c] - q1[c] * q1[c];
      float better = (n * xq[c] - q1[c] * sum_x) / determinant, shift = (better * q1[c] - sum_x) / n;
      if (shift < 0) {
        shift = 0;
        better = xq[c] / q2[c];
      }
      if (!(determinant > 0) || !(better > 0)) continue;  // stays as it is
      scale[c] = better;
      offset[c] = shift;
    }
  }
  return best;
}

}  // namespace
}  // namespace kotoba::cpu::KOTOBA_ISA
