// One vector type per instruction set: VF, kLanes floats. For *_isa.cpp files only. Loads and stores need no
// alignment; `n` of the partial ones is 0 … kLanes. A baseline build uses the compiler's generic vectors,
// which any CPU has.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
// g++ 12 finds the intrinsics' own deliberately undefined operands (PR 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define KOTOBA_INLINE static inline __attribute__((always_inline))

namespace kotoba::cpu::KOTOBA_ISA {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using VF = __m512;

KOTOBA_INLINE __mmask16 v_mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
KOTOBA_INLINE VF v_zero() { return _mm512_setzero_ps(); }
KOTOBA_INLINE VF v_set(float a) { return _mm512_set1_ps(a); }
KOTOBA_INLINE VF v_load(const float* p) { return _mm512_loadu_ps(p); }
KOTOBA_INLINE VF v_load_partial(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(v_mask(n), p); }
KOTOBA_INLINE void v_store(float* p, VF a) { _mm512_storeu_ps(p, a); }
KOTOBA_INLINE void v_store_partial(float* p, VF a, int64_t n) { _mm512_mask_storeu_ps(p, v_mask(n), a); }
KOTOBA_INLINE VF v_add(VF a, VF b) { return _mm512_add_ps(a, b); }
KOTOBA_INLINE VF v_sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
KOTOBA_INLINE VF v_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
KOTOBA_INLINE VF v_div(VF a, VF b) { return _mm512_div_ps(a, b); }
// min/max give b where either is NaN.
KOTOBA_INLINE VF v_min(VF a, VF b) { return _mm512_min_ps(a, b); }
KOTOBA_INLINE VF v_max(VF a, VF b) { return _mm512_max_ps(a, b); }
KOTOBA_INLINE VF v_abs(VF a) { return _mm512_abs_ps(a); }
KOTOBA_INLINE VF v_sqrt(VF a) { return _mm512_sqrt_ps(a); }
KOTOBA_INLINE VF v_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
KOTOBA_INLINE VF v_fnma(VF a, VF b, VF c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
KOTOBA_INLINE VF v_round(VF a) { return _mm512_roundscale_ps(a, 8); }            // to nearest even
// a < b ? x : y
KOTOBA_INLINE VF v_select_less(VF a, VF b, VF x, VF y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
KOTOBA_INLINE VF v_ldexp(VF a, VF n) { return _mm512_scalef_ps(a, n); }  // a * 2^n, n integral
// Pairs (a, b) turned by rotation = pairs (cosine, sine): (cos a - sin b, cos b + sin a).
KOTOBA_INLINE VF v_rotate_pairs(VF a, VF rotation) {
  const VF sine = v_mul(_mm512_permute_ps(a, 0xb1), _mm512_movehdup_ps(rotation));
  return _mm512_fmaddsub_ps(a, _mm512_moveldup_ps(rotation), sine);
}
KOTOBA_INLINE float v_sum(VF a) { return _mm512_reduce_add_ps(a); }
KOTOBA_INLINE float v_max_lane(VF a) { return _mm512_reduce_max_ps(a); }

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using VF = __m256;

KOTOBA_INLINE __m256i v_mask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
KOTOBA_INLINE VF v_zero() { return _mm256_setzero_ps(); }
KOTOBA_INLINE VF v_set(float a) { return _mm256_set1_ps(a); }
KOTOBA_INLINE VF v_load(const float* p) { return _mm256_loadu_ps(p); }
KOTOBA_INLINE VF v_load_partial(const float* p, int64_t n) { return _mm256_maskload_ps(p, v_mask(n)); }
KOTOBA_INLINE void v_store(float* p, VF a) { _mm256_storeu_ps(p, a); }
KOTOBA_INLINE void v_store_partial(float* p, VF a, int64_t n) { _mm256_maskstore_ps(p, v_mask(n), a); }
KOTOBA_INLINE VF v_add(VF a, VF b) { return _mm256_add_ps(a, b); }
KOTOBA_INLINE VF v_sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
KOTOBA_INLINE VF v_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
KOTOBA_INLINE VF v_div(VF a, VF b) { return _mm256_div_ps(a, b); }
KOTOBA_INLINE VF v_min(VF a, VF b) { return _mm256_min_ps(a, b); }
KOTOBA_INLINE VF v_max(VF a, VF b) { return _mm256_max_ps(a, b); }
KOTOBA_INLINE VF v_abs(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
KOTOBA_INLINE VF v_sqrt(VF a) { return _mm256_sqrt_ps(a); }
KOTOBA_INLINE VF v_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
KOTOBA_INLINE VF v_fnma(VF a, VF b, VF c) { return _mm256_fnmadd_ps(a, b, c); }
KOTOBA_INLINE VF v_round(VF a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KOTOBA_INLINE VF v_select_less(VF a, VF b, VF x, VF y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
// 2^n as bits, for -126 <= n <= 127.
KOTOBA_INLINE VF v_power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
// In two steps, so that results under- and overflow properly for -252 <= n <= 254.
KOTOBA_INLINE VF v_ldexp(VF a, VF n) {
  const __m256i all = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(all, 1);
  return v_mul(v_mul(a, v_power_of_two(half)), v_power_of_two(_mm256_sub_epi32(all, half)));
}
KOTOBA_INLINE VF v_rotate_pairs(VF a, VF rotation) {
  const VF sine = v_mul(_mm256_permute_ps(a, 0xb1), _mm256_movehdup_ps(rotation));
  return _mm256_fmaddsub_ps(a, _mm256_moveldup_ps(rotation), sine);
}
KOTOBA_INLINE float v_sum(VF a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
KOTOBA_INLINE float v_max_lane(VF a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#else

constexpr int kLanes = 4;
typedef float VF __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));

KOTOBA_INLINE VF v_zero() { return VF{}; }
KOTOBA_INLINE VF v_set(float a) { return VF{a, a, a, a}; }
KOTOBA_INLINE VF v_load(const float* p) {
  VF a;
  memcpy(&a, p, sizeof a);
  return a;
}
KOTOBA_INLINE VF v_load_partial(const float* p, int64_t n) {
  VF a{};
  memcpy(&a, p, n * sizeof(float));
  return a;
}
KOTOBA_INLINE void v_store(float* p, VF a) { memcpy(p, &a, sizeof a); }
KOTOBA_INLINE void v_store_partial(float* p, VF a, int64_t n) { memcpy(p, &a, n * sizeof(float)); }
KOTOBA_INLINE VF v_add(VF a, VF b) { return a + b; }
KOTOBA_INLINE VF v_sub(VF a, VF b) { return a - b; }
KOTOBA_INLINE VF v_mul(VF a, VF b) { return a * b; }
KOTOBA_INLINE VF v_div(VF a, VF b) { return a / b; }
KOTOBA_INLINE VF v_min(VF a, VF b) { return a < b ? a : b; }
KOTOBA_INLINE VF v_max(VF a, VF b) { return a > b ? a : b; }
KOTOBA_INLINE VF v_abs(VF a) { return (VF)((VI)a & 0x7fffffff); }
KOTOBA_INLINE VF v_sqrt(VF a) {
  for (int i = 0; i < kLanes; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
KOTOBA_INLINE VF v_fma(VF a, VF b, VF c) { return a * b + c; }
KOTOBA_INLINE VF v_fnma(VF a, VF b, VF c) { return c - a * b; }
// To nearest even for |a| < 2^22, which is all that v_exp needs.
KOTOBA_INLINE VF v_round(VF a) {
  const VF magic = v_set(0x1.8p23f);
  return (a + magic) - magic;
}
KOTOBA_INLINE VF v_select_less(VF a, VF b, VF x, VF y) { return a < b ? x : y; }
KOTOBA_INLINE VF v_ldexp(VF a, VF n) {
  const VI all = __builtin_convertvector(n, VI), half = all >> 1;
  return a * (VF)((half + 127) << 23) * (VF)((all - half + 127) << 23);
}
KOTOBA_INLINE VF v_rotate_pairs(VF a, VF rotation) {
  const VF sine = __builtin_shuffle(a, VI{1, 0, 3, 2}) * __builtin_shuffle(rotation, VI{1, 1, 3, 3});
  return a * __builtin_shuffle(rotation, VI{0, 0, 2, 2}) + sine * VF{-1, 1, -1, 1};
}
KOTOBA_INLINE float v_sum(VF a) { return (a[0] + a[2]) + (a[1] + a[3]); }
KOTOBA_INLINE float v_max_lane(VF a) {
  const float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
  return x > y ? x : y;
}

#endif

// *p in every lane; like the other loads it needs no alignment.
KOTOBA_INLINE VF v_broadcast(const float* p) {
  float a;
  memcpy(&a, p, sizeof a);
  return v_set(a);
}

// e^a to 1 ulp or so for every float: 0 from -104 down, infinity from 88.73 up, NaN stays NaN.
// a = n ln 2 + r; e^r = 1 + r + r² q(r), q minimax on |r| <= ln 2 / 2 (error 3e-9).
KOTOBA_INLINE VF v_exp(VF a) {
  const VF x = v_max(v_set(-104.0f), v_min(v_set(89.0f), a));
  const VF n = v_round(v_mul(x, v_set(0x1.715476p+0f)));  // 1 / ln 2
  // ln 2 in two parts; the first is short, so that n times it is exact even without fused multiply-add.
  const VF r = v_fnma(n, v_set(0x1.7f7d1cp-20f), v_fnma(n, v_set(0x1.62e4p-1f), x));
  VF q = v_set(0x1.6db40ee3374f0p-10f);
  q = v_fma(q, r, v_set(0x1.123b4664ebec4p-7f));
  q = v_fma(q, r, v_set(0x1.55545e07adc79p-5f));
  q = v_fma(q, r, v_set(0x1.55548eff9389ap-3f));
  q = v_fma(q, r, v_set(0x1.00000051b4ccep-1f));
  return v_ldexp(v_add(v_set(1.0f), v_fma(v_mul(r, r), q, r)), n);
}

// 1 / (1 + e^-a)
KOTOBA_INLINE VF v_sigmoid(VF a) { return v_div(v_set(1.0f), v_add(v_set(1.0f), v_exp(v_sub(v_zero(), a)))); }

// The normal distribution function Φ(a) = (1 + erf(a / √2)) / 2, with relative accuracy in the lower tail.
// Φ(-|a|) = 2^p(|a|), p minimax on [0, 6] for the error of a Φ(a) (1.2e-8); beyond, Φ(-|a|) < 1e-9 counts as
// 0.
KOTOBA_INLINE VF v_normal_cdf(VF a) {
  const VF z = v_min(v_set(6.0f), v_abs(a));
  VF p = v_set(-2.0962976945392903e-06f);
  p = v_fma(p, z, v_set(3.065929118180408e-05f));
  p = v_fma(p, z, v_set(-0.0001454783293502446f));
  p = v_fma(p, z, v_set(-0.0002331695798874782f));
  p = v_fma(p, z, v_set(0.007185871926612271f));
  p = v_fma(p, z, v_set(-0.05257825832095901f));
  p = v_fma(p, z, v_set(-0.45918203040038436f));
  p = v_fma(p, z, v_set(-1.1511082936327992f));
  p = v_fma(p, z, v_set(-0.9999999341706203f));
  const VF tail = v_select_less(v_set(6.0f), v_abs(a), v_zero(), v_exp(v_mul(p, v_set(0x1.62e43p-1f))));
  return v_select_less(a, v_zero(), tail, v_sub(v_set(1.0f), tail));
}

}  // namespace kotoba::cpu::KOTOBA_ISA
