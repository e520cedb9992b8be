// Between an image [batch, channels, height, width] and its tokens, whose features are the pixels of a square
// patch:
//   tokens[(b * height/P + y) * width/P + x, feature(c, ph, pw)] = image[b, c, y * P + ph, x * P + pw]
//   feature(c, ph, pw) = (c * P + ph) * P + pw, or (ph * P + pw) * channels + c
#include "ops.h"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;

struct PatchMap {
  float *image, *tokens;
  int64_t token_stride, pixels;            // of all images
  int64_t channels, plane, height, width;  // plane: pixels of an image
  int patch;
  bool channels_first;
  Divisor by_width, by_height, by_patch;
};

// A thread to a pixel, for all of its channels.
template <bool kToTokens>
__global__ void __launch_bounds__(kThreads) move_patches_kernel(PatchMap p) {
  const int64_t pixel = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pixel >= p.pixels) return;
  uint32_t pw = static_cast<uint32_t>(pixel), ph = p.by_width.divide(pw);
  const uint32_t b = p.by_height.divide(ph), y = ph, x = pw;
  const uint32_t across = p.by_patch.divide(pw), down = p.by_patch.divide(ph);
  const int64_t patch = p.patch, token = (b * (p.height / patch) + down) * (p.width / patch) + across;
  const int64_t step = p.channels_first ? patch * patch : 1;  // from feature to feature of the next channel
  float* feature =
      p.tokens + token * p.token_stride + (ph * patch + pw) * (p.channels_first ? 1 : p.channels);
  float* at = p.image + b * p.channels * p.plane + y * p.width + x;
  KOTOBA_UNROLL(unroll 4)
  for (int64_t c = 0; c < p.channels; ++c) {
    if (kToTokens)
      feature[c * step] = at[c * p.plane];
    else
      at[c * p.plane] = feature[c * step];
  }
}

template <bool kToTokens>
void move_patches(const Context& context, const TensorView& image, const TensorView& tokens,
                  const Patches& how) {
  const char* op = kToTokens ? "patchify" : "unpatchify";
  if (image.elements() == 0) return;
  const int64_t plane = how.height * how.width, pixels = how.batch * plane;
  require(pixels < int64_t{1} << 31, op, ": ", pixels, " pixels are more than a GPU's kernel counts");
  const PatchMap p = {.image = image.as<float>(),
                      .tokens = tokens.as<float>(),
                      .token_stride = tokens.row_stride,
                      .pixels = pixels,
                      .channels = how.channels,
                      .plane = plane,
                      .height = how.height,
                      .width = how.width,
                      .patch = static_cast<int>(how.patch),
                      .channels_first = how.channels_first,
                      .by_width = Divisor(how.width),
                      .by_height = Divisor(how.height),
                      .by_patch = Divisor(how.patch)};
  launch(context.stream, {op, ceil_div(pixels, kThreads), kThreads}, move_patches_kernel<kToTokens>, p);
}

}  // namespace

void patchify(const Context& context, TensorView out, TensorView x, const Patches& how) {
  move_patches<true>(context, x, out, how);
}

void unpatchify(const Context& context, TensorView out, TensorView x, const Patches& how) {
  move_patches<false>(context, out, x, how);
}

}  // namespace kotoba::cuda
