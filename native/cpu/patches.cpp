// Between an image [batch, channels, height, width] and its tokens, whose features are the pixels of a square
// patch:
//   tokens[(b * height/P + y) * width/P + x, feature(c, ph, pw)] = image[b, c, y * P + ph, x * P + pw]
//   feature(c, ph, pw) = (c * P + ph) * P + pw  (Flux packs so), or (ph * P + pw) * channels + c  (SD3's
//   output)
#include <algorithm>

#include "cpu_backend.h"
#include "thread_pool.h"

namespace kotoba::cpu {
namespace {

constexpr int64_t kChunkElements = 16384;  // 64 KB of pixels a chunk: some microseconds
constexpr int64_t kBlockElements = 4096;   // of tokens that all channels pass by: 16 KB stay in L1

// One line of pixels of one channel, and where its pixels go: pixel x * P + pw to
// token[x * token_stride + pw * step].
struct Line {
  float* pixels;
  float* token;
  int64_t tokens, token_stride, step;
};

template <int kPatch>  // 0: `patch`
void pack_line(const Line& line, int64_t patch) {
  const int64_t p = kPatch ? kPatch : patch;
  for (int64_t x = 0; x < line.tokens; ++x)
    for (int64_t pw = 0; pw < p; ++pw)
      line.token[x * line.token_stride + pw * line.step] = line.pixels[x * p + pw];
}

template <int kPatch>
void unpack_line(const Line& line, int64_t patch) {
  const int64_t p = kPatch ? kPatch : patch;
  for (int64_t x = 0; x < line.tokens; ++x)
    for (int64_t pw = 0; pw < p; ++pw)
      line.pixels[x * p + pw] = line.token[x * line.token_stride + pw * line.step];
}

using MoveLine = void (*)(const Line& line, int64_t patch);

// The lines of row `row` of the tokens of all images, a block of tokens at a time: every channel of `patch`
// rows of pixels.
void move_row(MoveLine move, const Patches& p, float* image, const TensorView& tokens, int64_t row) {
  const int64_t down = p.height / p.patch, across = p.width / p.patch, b = row / down, y = row % down;
  const int64_t step = p.channels_first ? 1 : p.channels;
  const int64_t block = std::max<int64_t>(16, kBlockElements / (p.channels * p.patch * p.patch));
  for (int64_t x = 0; x < across; x += block)
    for (int64_t c = 0; c < p.channels; ++c)
      for (int64_t ph = 0; ph < p.patch; ++ph) {
        const int64_t line = (b * p.channels + c) * p.height + y * p.patch + ph;
        const int64_t feature =
            p.channels_first ? (c * p.patch + ph) * p.patch : ph * p.patch * p.channels + c;
        move({image + line * p.width + x * p.patch, tokens.row<float>(row * across + x) + feature,
              std::min(block, across - x), tokens.row_stride, step},
             p.patch);
      }
}

void move_patches(const Context& context, MoveLine move, const Patches& p, const TensorView& image,
                  const TensorView& tokens) {
  const int64_t rows = p.batch * (p.height / p.patch);
  const int64_t step = std::max<int64_t>(1, kChunkElements / (p.channels * p.patch * p.width));
  context.pool->run(context.threads, (rows + step - 1) / step, [&](int64_t chunk) {
    if (context.cancelled->load(std::memory_order_relaxed)) return;
    for (int64_t row = chunk * step; row < std::min(rows, (chunk + 1) * step); ++row)
      move_row(move, p, image.as<float>(), tokens, row);
  });
}

}  // namespace

void CpuBackend::patchify(TensorView out, TensorView x, Patches how) {
  const MoveLine move = how.patch == 1 ? pack_line<1> : how.patch == 2 ? pack_line<2> : pack_line<0>;
  move_patches(context_, move, how, x, out);
}

void CpuBackend::unpatchify(TensorView out, TensorView x, Patches how) {
  const MoveLine move = how.patch == 1 ? unpack_line<1> : how.patch == 2 ? unpack_line<2> : unpack_line<0>;
  move_patches(context_, move, how, out, x);
}

}  // namespace kotoba::cpu
