// The int8 micro-kernel on AMX tiles, 16 tokens at a time: the same numbers to the last bit, for the integers
// are exact and the float operations the same. For *_isa.cpp files only.
#pragma once

#include "amx_tile.h"
#include "linear_int8_multiply.h"

namespace kotoba::cpu::KOTOBA_ISA {

constexpr int kTileTokens = 16;

// Tiles 0, 1: sums [token][row] of the panel's two vectors; 2, 3: tokens, their first and second scale's
// columns; 4, 5: codes [step][row][4] of the vectors for the first scale, 6, 7: for the second.
static inline void configure_tiles(int scales) {
  TileConfig config{};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    const bool tokens = tile == 2 || tile == 3;
    config.rows[tile] = static_cast<uint8_t>(tile < 4 ? kTileTokens : kSteps / scales);
    config.row_bytes[tile] = static_cast<uint16_t>(tokens ? kBlock / scales : kStepBytes);
  }
  KOTOBA_TILE_CONFIGURE(&config);
}

// dots [scale][vector][token][row] of 16 tokens.
template <int kScales>
KOTOBA_INLINE void multiply_tiles(const ActivationBlock* x, int32_t (*dots)[kVectors][kTileTokens][kLanes]) {
  KOTOBA_TILE_ZERO(0);
  KOTOBA_TILE_ZERO(1);
  KOTOBA_TILE_LOAD(2, x->codes, sizeof(ActivationBlock));
  KOTOBA_TILE_DOT(0, 2, 4);
  KOTOBA_TILE_DOT(1, 2, 5);
  KOTOBA_TILE_STORE(0, dots[0][0], kStepBytes);
  KOTOBA_TILE_STORE(1, dots[0][1], kStepBytes);
  if (kScales == 1) return;
  KOTOBA_TILE_ZERO(0);
  KOTOBA_TILE_ZERO(1);
  KOTOBA_TILE_LOAD(3, x->codes + kBlock / 2, sizeof(ActivationBlock));
  KOTOBA_TILE_DOT(0, 3, 6);
  KOTOBA_TILE_DOT(1, 3, 7);
  KOTOBA_TILE_STORE(0, dots[kScales - 1][0], kStepBytes);
  KOTOBA_TILE_STORE(1, dots[kScales - 1][1], kStepBytes);
}

// As multiply_block, between configure_tiles() and KOTOBA_TILE_RELEASE(). Reads whole tiles of tokens: x is
// padded to a multiple of kTileTokens.
template <int kBits, int kScales, bool kHasLow>
void multiply_block_tiles(const Panel& panel, int64_t block, const ActivationBlock* x, int64_t tokens,
                          float* sums) {
  static_assert(kVectors == 2 && kLanes == 16);
  using Scales = BlockScales<kScales, kHasLow>;
  if (tokens < kTileTokens / 4)  // mostly empty tiles
    return multiply_block<kBits, kScales, kHasLow>(panel, block, x, tokens, sums);
  const Scales scales = Scales::of(panel, block);
  const uint8_t* codes = panel.codes + block * Panel::kBlockBytes;
  KOTOBA_TILE_LOAD(4, codes, kStepBytes);
  KOTOBA_TILE_LOAD(5, codes + kSteps * kStepBytes, kStepBytes);
  if (kScales == 2) {
    KOTOBA_TILE_LOAD(6, codes + kSteps / 2 * kStepBytes, kStepBytes);
    KOTOBA_TILE_LOAD(7, codes + kSteps * 3 / 2 * kStepBytes, kStepBytes);
  }
  for (; tokens > 0; tokens -= kTileTokens) {
    alignas(64) int32_t stored[kScales][kVectors][kTileTokens][kLanes];
    multiply_tiles<kScales>(x, stored);
    for (int t = 0; t < kTileTokens && t < tokens; ++t, ++x, sums += kRows) {
      VI dots[kVectors][kScales];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 2
        for (int s = 0; s < kScales; ++s) {
          const VI start = i_set(kHasLow ? 0 : x->start[s]);
          dots[v][s] = i_add(i_load(stored[s][v][t]), start);
        }
      Scales::add(scales, dots, *x, sums);
    }
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
