// The int8 micro-kernel: 32 columns of a panel times a group of tokens. For *_isa.cpp files only.
#pragma once

#include "linear_int8_activations.h"
#include "linear_int8_dot.h"
#include "linear_int8_panel.h"

namespace kotoba::cpu::KOTOBA_ISA {

// sums [token][row of the panel] += columns of `block` of the panel times x, the same columns of the tokens.
using MultiplyBlock = void (*)(const Panel& panel, int64_t block, const ActivationBlock* x, int64_t tokens,
                               float* sums);

// What turns the exact dot products of a block into floats.
template <int kScales, bool kHasLow>
struct BlockScales {
  VF scale[kVectors][kScales], low[kVectors][kScales];

  KOTOBA_INLINE BlockScales of(const Panel& panel, int64_t block) {
    BlockScales scales;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 2
      for (int s = 0; s < kScales; ++s) {
        const int64_t at = ((block * kVectors + v) * kScales + s) * kLanes;
        scales.scale[v][s] = v_load(panel.scales + at);
        if (kHasLow) scales.low[v][s] = v_load(panel.lows + at);
      }
    return scales;
  }

  // One token's, with ActivationBlock::start included.
  KOTOBA_INLINE void add(const BlockScales& b, const VI (&dots)[kVectors][kScales], const ActivationBlock& x,
                         float* sums) {
    VF sum[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      VF dot = v_mul(i_to_float(dots[v][0]), b.scale[v][0]);
      if (kScales == 2) dot = v_fma(i_to_float(dots[v][kScales - 1]), b.scale[v][kScales - 1], dot);
      sum[v] = v_fma(dot, v_set(x.scale), v_load(sums + v * kLanes));
#pragma GCC unroll 2
      for (int s = 0; s < kScales && kHasLow; ++s) sum[v] = v_fma(b.low[v][s], v_set(x.sum[s]), sum[v]);
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) v_store(sums + v * kLanes, sum[v]);
  }
};

// The steps [kFirst, kFirst + kCount) stay in registers while the tokens pass, each four of a token's codes
// in all lanes.
template <int kBits, int kScales, bool kHasLow, int kFirst, int kCount>
KOTOBA_INLINE void multiply_steps(const Panel& panel, int64_t block, const ActivationBlock* x, int64_t tokens,
                                  float* sums) {
  using Codes = WeightBlock<kBits, kFirst, kCount>;
  using Scales = BlockScales<kScales, kHasLow>;
  constexpr int kEach = kCount / kScales;
  constexpr bool kStart = !kHasLow && kFirst == 0;
  const Scales scales = Scales::of(panel, block);
  Codes w[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v)
    w[v] = Codes::of(panel.codes + (block * kVectors + v) * kSteps * kStepBytes);
  for (int64_t t = 0; t < tokens; ++t, ++x, sums += kRows) {
    VI dots[kVectors][kScales];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      dots[v][0] = Codes::template dot<kFirst, kEach>(w[v], x->codes, kStart ? x->start[0] : 0);
      if constexpr (kScales == 2)
        dots[v][1] = Codes::template dot<kFirst + kEach, kEach>(w[v], x->codes, kStart ? x->start[1] : 0);
    }
    Scales::add(scales, dots, *x, sums);
  }
}

template <int kBits, int kScales, bool kHasLow>
void multiply_block(const Panel& panel, int64_t block, const ActivationBlock* x, int64_t tokens,
                    float* sums) {
  static_assert(kPasses<kBits> == 1 || (kScales == 1 && !kHasLow));
  constexpr int kCount = kSteps / kPasses<kBits>;
  multiply_steps<kBits, kScales, kHasLow, 0, kCount>(panel, block, x, tokens, sums);
  if constexpr (kPasses<kBits> == 2)
    multiply_steps<kBits, kScales, kHasLow, kCount, kCount>(panel, block, x, tokens, sums);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
