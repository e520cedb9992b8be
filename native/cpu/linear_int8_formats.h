// Rows of any stored type to panels. Types without an unpack() of their own are decoded to float and
// quantised like Q8_0. For *_isa.cpp files only.
#pragma once

#include "isa.h"
#include "linear_int8_activations.h"
#include "linear_int8_unpack.h"
#include "linear_int8_unpack_k.h"

namespace kotoba::cpu::KOTOBA_ISA {

// `columns` <= kChunk of the rows.
using UnpackRows = void (*)(DType dtype, const Rows& rows, int64_t columns, PanelRows out);

// `scales` to each 32 columns.
KOTOBA_INLINE PanelRows from_block(const PanelRows& out, int64_t block, int scales) {
  return {out.codes + block * Panel::kBlockBytes, out.scales + block * scales * kRows,
          out.lows + block * scales * kRows};
}

template <typename Block, int kScales>
static void unpack_rows(DType, const Rows& rows, int64_t columns, PanelRows out) {
  for (int64_t i = 0; i < columns / Block::kWeights; ++i)
    unpack(Tag<Block>{}, rows, i * static_cast<int64_t>(sizeof(Block)),
           from_block(out, i * (Block::kWeights / kBlock), kScales));
}

// A block of floats after quantisation.
struct BlockFromFloat {
  float d;
  int8_t qs[kBlock];
};

static inline void unpack_rows_as_float(DType dtype, const Rows& rows, int64_t columns, PanelRows out) {
  constexpr int64_t kStage = 256;  // the largest block of any type
  BlockFromFloat stage[kLanes][kStage / kBlock];
  Rows staged;
  for (int64_t c = 0; c < columns; c += kStage) {
    const int64_t count = columns - c < kStage ? columns - c : kStage;
    const int blocks = static_cast<int>((count + kBlock - 1) / kBlock);
    for (int r = 0; r < kLanes; ++r) {
      float w[kStage];
      decode_row(dtype, rows.at[r] + dtype_bytes(dtype, c), w, count);
      for (int64_t i = count; i < blocks * kBlock; ++i) w[i] = 0;
      for (int b = 0; b < blocks; ++b) stage[r][b].d = quantise_block(w + b * kBlock, stage[r][b].qs);
      staged.at[r] = reinterpret_cast<const std::byte*>(stage[r]);
    }
    for (int b = 0; b < blocks; ++b) {
      const int64_t at = b * static_cast<int64_t>(sizeof(BlockFromFloat));
      const PanelRows block = from_block(out, c / kBlock + b, 1);
      put_signed(block, 0, staged, at + static_cast<int64_t>(offsetof(BlockFromFloat, qs)));
      put_scale(block, 0, (VF)load_4_bytes(staged, at));
    }
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
