// The int8 micro-kernel: 32 columns of a panel times a group of tokens. For *_isa.cpp files only.
#pragma once

#include "linear_int8_activations.h"
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

// All codes of the block stay in registers while the tokens pass, each four of its codes in all lanes.
template <int kBits, int kScales, bool kHasLow>
void multiply_block(const Panel& panel, int64_t block, const ActivationBlock* x, int64_t tokens,
                    float* sums) {
  using Codes = WeightBlock<kBits>;
  using Scales = BlockScales<kScales, kHasLow>;
  constexpr int kCount = kSteps / kScales;
  const Scales scales = Scales::of(panel, block);
  Codes w[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v)
    w[v] = Codes::of(panel.codes + (block * kVectors + v) * kSteps * kStepBytes);
  for (int64_t t = 0; t < tokens; ++t, ++x, sums += kRows) {
    VI dots[kVectors][kScales];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      dots[v][0] = Codes::template dot<0, kCount>(w[v], x->codes, kHasLow ? 0 : x->start[0]);
      if (kScales == 2)
        dots[v][kScales - 1] =
            Codes::template dot<kSteps - kCount, kCount>(w[v], x->codes, kHasLow ? 0 : x->start[1]);
    }
    Scales::add(scales, dots, *x, sums);
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
