// conv2d as a matmul: a token is an output pixel, its row of x the kernel² input pixels that it sees, those
// outside the image zeros. That row exists only in the panels that the FP32 matmul packs anyway, some blocks
// of pixels at a time, so memory does not grow with the image and an upscaled input is never stored. The
// row's order is the weights': theirs as stored costs no copy of them, for the packing can as well write in
// that one.
//
// It runs in FP32 whatever the precision asked for: a picture shows the noise of an int8 decoder.
#include "linear_pack.h"
#include "linear_problem.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

// The order of a window's values, and of a weight's columns.
enum class Order { kTapsFirst, kChannelsFirst };  // ky, kx, c; c, ky, kx

// The pixels that each output pixel sees.
class Windows final : public TokenSource {
 public:
  Windows(const TensorView& x, const Conv2d& how, Order order)
      : x_(reinterpret_cast<const float*>(x.data)),
        stride_(x.row_stride),
        channels_(x.cols()),
        how_(how),
        order_(order),
        out_height_(how.out_size(how.height)),
        out_width_(how.out_size(how.width)) {}

  void pack(int64_t token, int64_t present, int64_t col, int64_t count, float* dst,
            int64_t dst_stride) const override {
    Corner corners[kLanes];
    find_corners(token, present, corners);
    if (order_ == Order::kTapsFirst)
      pack_taps_first(corners, col, count, dst, dst_stride);
    else
      pack_channels_first(corners, col, count, dst, dst_stride);
  }

 private:
  // The upper left pixel of a window in its (upscaled) image.
  struct Corner {
    int64_t image;  // floats before it
    int64_t y, x;
  };

  void pack_taps_first(const Corner (&corners)[kLanes], int64_t col, int64_t count, float* dst,
                       int64_t dst_stride) const {
    for (const int64_t end = col + count; col < end;) {
      const int64_t tap = col / channels_, channel = col % channels_;
      const int64_t piece = smaller(channels_ - channel, end - col);
      pack_tap(corners, tap, channel, piece, dst, dst_stride);
      col += piece;
      dst += piece * dst_stride;
    }
  }

  // Column c * taps + tap: the channels of one tap lie `taps` columns apart.
  void pack_channels_first(const Corner (&corners)[kLanes], int64_t col, int64_t count, float* dst,
                           int64_t dst_stride) const {
    const int64_t taps = how_.kernel * how_.kernel;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t first = ceil_div(col - tap, taps), end = ceil_div(col + count - tap, taps);
      if (first < end)
        pack_tap(corners, tap, first, end - first, dst + (first * taps + tap - col) * dst_stride,
                 taps * dst_stride);
    }
  }

  void pack_tap(const Corner (&corners)[kLanes], int64_t tap, int64_t channel, int64_t count, float* dst,
                int64_t dst_stride) const {
    const int64_t ky = tap / how_.kernel, kx = tap % how_.kernel;
    const float* lines[kLanes];
    for (int i = 0; i < kLanes; ++i) lines[i] = line(corners[i], ky, kx, channel);
    pack_lines(lines, count, dst, dst_stride);
  }

  void find_corners(int64_t token, int64_t present, Corner (&corners)[kLanes]) const {
    int64_t x = token % out_width_, y = token / out_width_ % out_height_;
    const int64_t image_floats = how_.height * how_.width * stride_;
    int64_t image = token / out_width_ / out_height_ * image_floats;
    for (int i = 0; i < kLanes; ++i) {
      corners[i] = {image, y * how_.stride - how_.pad_before, x * how_.stride - how_.pad_before};
      if (i >= present) corners[i].y = kNowhere;
      if (++x < out_width_) continue;
      x = 0;
      if (++y < out_height_) continue;
      y = 0;
      image += image_floats;
    }
  }

  // From `channel` on of the pixel (ky, kx) of a window. upscale is 1 or 2, hence the shift: dividing would
  // take as long as the packing.
  const float* line(const Corner& corner, int64_t ky, int64_t kx, int64_t channel) const {
    const int64_t shift = how_.upscale - 1;
    const int64_t y = (corner.y + ky) >> shift, x = (corner.x + kx) >> shift;
    const bool inside = y >= 0 && x >= 0 && y < how_.height && x < how_.width;
    return inside ? x_ + corner.image + (y * how_.width + x) * stride_ + channel : kZeroLine;
  }

  static constexpr int64_t kNowhere = INT64_MIN / 2;  // a window of zeros

  const float* x_;
  int64_t stride_, channels_;
  Conv2d how_;
  Order order_;
  int64_t out_height_, out_width_;
};

// Columns to pack at a time: whole vectors of channels of every tap, if so many fit.
int64_t stored_depth(int64_t taps) {
  const int64_t vectors = taps * kLanes;
  return 2 * vectors <= kPackDepth ? kPackDepth / (2 * vectors) * 2 * vectors : kUsualDepth;
}

// Of w [n, c, ky, kx].
LinearProblem make_stored_problem(int64_t m, const TensorView& w) {
  TensorView matrix = w;
  matrix.rank = 2;
  matrix.shape[1] = matrix.row_stride = w.shape[1] * w.shape[2] * w.shape[3];
  LinearProblem p = make_linear_problem(m, matrix);
  p.depth = stored_depth(w.shape[2] * w.shape[3]);
  return p;
}

}  // namespace

void conv2d(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue,
            const Conv2d& how, Precision) {
  const bool pointwise =
      how.kernel == 1 && how.stride == 1 && how.upscale == 1 && how.pad_before == 0 && how.pad_after == 0;
  if (pointwise && w.rank == 2) return linear_fp32(context, out, x, w, epilogue);
  const bool stored = w.rank == 4;
  const LinearProblem p = stored ? make_stored_problem(out.rows(), w) : make_linear_problem(out.rows(), w);
  if (p.m == 0 || p.n == 0) return;
  const Order order = stored ? Order::kChannelsFirst : Order::kTapsFirst;
  linear_many_tokens(context, p, Windows(x, how, order), out, epilogue);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
