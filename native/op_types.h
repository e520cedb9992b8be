// The argument structs that ops share on every device.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor_view.h"

namespace kotoba {

// Exact meaning in DESIGN: kFp32 decodes stored weights exactly and accumulates in FP32; kInt8 (CPU)
// quantises the activations per 32 columns (and float weights likewise); kFp16 and kBf16 (GPU) round what is
// multiplied, and accumulate in FP32.
enum class Precision : uint8_t { kFp32, kInt8, kFp16, kBf16 };

enum class Activation : uint8_t { kNone, kGeluTanh, kGeluErf, kQuickGelu, kSilu };

// What `linear` does to its accumulator before the only store:
//   out = activation(scale * acc + bias) * multiply + add
// Absent parts are empty views. `add` may alias `out`: the residual stream.
struct Epilogue {
  TensorView scale;  // F32 [1] or [n]: FP8 scale
  TensorView bias;   // [n], any float dtype
  Activation activation = Activation::kNone;
  // Both [m, n], or [groups, n] with m a multiple of groups: row r takes row r / (m / groups).
  TensorView multiply;  // activations: the other half of a gated unit; the gate of a modulated block
  TensorView add;       // F32: the residual stream; what all pixels of an image get
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

// RMS norm of each head, then rotary embedding of its pairs (2i, 2i + 1), arXiv:2104.09864, of `batch`
// sequences, written into rows [offset, offset + tokens) of longer ones: where text and image tokens meet.
struct HeadNormRope {
  int64_t batch = 1;
  int64_t heads = 1;
  int64_t offset = 0;  // tokens
  float eps = 0;
};

// Rows [x_offset, x_offset + tokens) of every sequence of x to rows from out_offset on of those of out.
struct CopyTokens {
  int64_t batch = 1;
  int64_t tokens = 0;
  int64_t out_offset = 0;
  int64_t x_offset = 0;
};

// A 2-D convolution over pixels in rows: x [batch * height * width, channels] (NHWC).
struct Conv2d {
  int64_t batch = 1;
  int64_t height = 0, width = 0;  // of x as stored
  int64_t upscale = 1;            // 2: x is read as if nearest-upsampled to twice its size
  int64_t kernel = 3;             // square
  int64_t stride = 1;
  int64_t pad_before = 1, pad_after = 1;  // top and left, bottom and right; zeros

  int64_t out_size(int64_t size) const {
    return (size * upscale + pad_before + pad_after - kernel) / stride + 1;
  }
};

struct GroupNorm {
  int64_t batch = 1;
  int64_t groups = 32;
  float eps = 1e-6f;
  Activation activation = Activation::kNone;
};

// Between an image [batch, channels, height, width] and tokens [batch * (height/patch) * (width/patch),
// patch * patch * channels]. Patch 1 is NCHW against rows of pixels.
struct Patches {
  int64_t batch = 1;
  int64_t channels = 0, height = 0, width = 0;  // of the image
  int64_t patch = 1;
  bool channels_first = true;  // order of a token's features: c, ph, pw (Flux) or ph, pw, c (SD3's output)
};

// Σ coefficient · x over tensors of one shape.
struct Terms {
  std::vector<float> coefficients;
  std::vector<TensorView> tensors;
};

}  // namespace kotoba
