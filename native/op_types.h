// The argument structs that ops share on every device.
#pragma once

#include <cstdint>

#include "tensor_view.h"

namespace kotoba {

// Exact meaning in DESIGN: kFp32 decodes stored weights exactly and accumulates in FP32; kInt8 quantises the
// activations per 32 columns (and float weights likewise).
enum class Precision : uint8_t { kFp32, kInt8 };

enum class Activation : uint8_t { kNone, kGeluTanh, kGeluErf, kQuickGelu, kSilu };

// What `linear` does to its accumulator before the only store:
//   out = activation(scale * acc + bias) * multiply + add
// Absent parts are empty views. `add` may alias `out`: the residual stream.
struct Epilogue {
  TensorView scale;  // F32 [1] or [n]: FP8 scale
  TensorView bias;   // [n], any float dtype
  Activation activation = Activation::kNone;
  TensorView multiply;  // F32 [m, n]: the other half of a gated unit
  TensorView add;       // F32 [m, n]
};

// Scaled dot-product attention over `batch` sequences, heads side by side in the columns of q, k, v.
struct Attention {
  int64_t batch = 1;
  int64_t heads = 1;
  float scale = 1;
  bool causal = false;
  TensorView key_mask;  // I32 [batch, keys], 0 = never attended; may be empty
  // T5 relative positions, arXiv:1910.10683 §2.1: bias_table [buckets, heads], any float dtype; may be empty.
  TensorView bias_table;
  bool bidirectional = true;
  int64_t max_distance = 128;
};

}  // namespace kotoba
