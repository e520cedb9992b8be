// kLanes x kLanes transposes in registers. For *_isa.cpp files only.
#pragma once

#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

#if defined(__AVX512F__)

KOTOBA_INLINE void v_transpose(VF (&a)[kLanes]) {
  VF b[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  // a[4 g + c] now holds, per 128-bit lane l, column 4 l + c of rows 4 g … 4 g + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    b[c] = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88);
    b[4 + c] = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
    b[8 + c] = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
    b[12 + c] = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    a[c] = _mm512_shuffle_f32x4(b[c], b[8 + c], 0x88);
    a[4 + c] = _mm512_shuffle_f32x4(b[4 + c], b[12 + c], 0x88);
    a[8 + c] = _mm512_shuffle_f32x4(b[c], b[8 + c], 0xdd);
    a[12 + c] = _mm512_shuffle_f32x4(b[4 + c], b[12 + c], 0xdd);
  }
}

#elif defined(__AVX2__)

KOTOBA_INLINE void v_transpose(VF (&a)[kLanes]) {
  VF b[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const VF low = a[c];
    a[c] = _mm256_permute2f128_ps(low, a[4 + c], 0x20);
    a[4 + c] = _mm256_permute2f128_ps(low, a[4 + c], 0x31);
  }
}

#else

KOTOBA_INLINE void v_transpose(VF (&a)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float swapped = a[i][j];
      a[i][j] = a[j][i];
      a[j][i] = swapped;
    }
}

#endif

}  // namespace kotoba::cpu::KOTOBA_ISA
