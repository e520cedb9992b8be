// Between an image [batch, channels, height, width] and its tokens, whose features are the pixels of a square
// patch:
//   tokens[(b * height/P + y) * width/P + x, feature(c, ph, pw)] = image[b, c, y * P + ph, x * P + pw]
//   feature(c, ph, pw) = (c * P + ph) * P + pw, or (ph * P + pw) * channels + c
#include "launch.h"
#include "ops.h"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;

struct PatchMap {
  float *image, *tokens;
  int64_t token_stride, count;
  int64_t channels, height, width, patch;
  bool channels_first;
};

// A thread to a pixel of a channel.
template <bool kToTokens>
__global__ void move_patches_kernel(PatchMap p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.count) return;
  const int64_t x = i % p.width, y = i / p.width % p.height, c = i / p.width / p.height % p.channels,
                b = i / p.width / p.height / p.channels;
  const int64_t token = (b * (p.height / p.patch) + y / p.patch) * (p.width / p.patch) + x / p.patch;
  const int64_t ph = y % p.patch, pw = x % p.patch;
  const int64_t feature =
      p.channels_first ? (c * p.patch + ph) * p.patch + pw : (ph * p.patch + pw) * p.channels + c;
  float* at = p.tokens + token * p.token_stride + feature;
  if (kToTokens)
    *at = p.image[i];
  else
    p.image[i] = *at;
}

template <bool kToTokens>
void move_patches(const Context& context, const TensorView& image, const TensorView& tokens,
                  const Patches& how) {
  const PatchMap p = {image.as<float>(), tokens.as<float>(), tokens.row_stride,
                      image.elements(),  how.channels,       how.height,
                      how.width,         how.patch,          how.channels_first};
  launch(context.stream, {kToTokens ? "patchify" : "unpatchify", ceil_div(p.count, kThreads), kThreads},
         move_patches_kernel<kToTokens>, p);
}

}  // namespace

void patchify(const Context& context, TensorView out, TensorView x, const Patches& how) {
  move_patches<true>(context, x, out, how);
}

void unpatchify(const Context& context, TensorView out, TensorView x, const Patches& how) {
  move_patches<false>(context, out, x, how);
}

}  // namespace kotoba::cuda
