// Tokens packed for the FP32 matmul, side by side in panels. For *_isa.cpp files only.
#pragma once

#include "linear_problem.h"
#include "linear_tile.h"

namespace kotoba::cpu::KOTOBA_ISA {

constexpr int64_t kBlockTokens = 256;
constexpr int64_t kMaxPanels = kBlockTokens / kLanes;

// At most kBlockTokens tokens, split into panels of 1 … kMaxVectors vectors, as even as can be. The columns
// [col, col + depth) of them are packed.
struct TokenBlock {
  int64_t first, tokens, panels;
  int64_t start[kMaxPanels + 1];  // in vectors
  int64_t col, depth;
  float* packed;  // panel p is [depth, width(p)] at packed + start[p] * kLanes * depth

  int vectors(int64_t p) const { return static_cast<int>(start[p + 1] - start[p]); }
  int64_t width(int64_t p) const { return vectors(p) * kLanes; }
  // Column `column` of panel p.
  float* at(int64_t p, int64_t column) const {
    return packed + start[p] * kLanes * depth + (column - col) * width(p);
  }
};

static TokenBlock make_token_block(int64_t first, int64_t tokens, int64_t depth, float* packed) {
  TokenBlock block{
      .first = first, .tokens = tokens, .panels = 0, .start = {}, .col = 0, .depth = depth, .packed = packed};
  const int64_t vectors = ceil_div(tokens, kLanes);
  block.panels = ceil_div(vectors, kMaxVectors);
  for (int64_t p = 0; p <= block.panels; ++p) block.start[p] = p * vectors / block.panels;
  return block;
}

// Packs columns [col, col + count), at most kPackDepth, of one panel.
static void pack_panel(const TokenSource& source, const TokenBlock& block, int64_t panel, int64_t col,
                       int64_t count) {
  float* dst = block.at(panel, col);
  for (int64_t v = 0; v < block.vectors(panel); ++v) {
    const int64_t token = (block.start[panel] + v) * kLanes;
    source.pack(block.first + token, smaller(kLanes, block.tokens - token), col, count, dst + v * kLanes,
                block.width(panel));
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
