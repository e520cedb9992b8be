// conv2d as a matmul: a token is an output pixel, its row of x the kernel² input pixels that it sees, those
// outside the image zeros. That row exists only in the panels that the FP32 matmul packs anyway, some blocks
// of pixels at a time, so memory does not grow with the image and an upscaled input is never stored.
//
// It runs in FP32 whatever the precision asked for: a picture shows the noise of an int8 decoder.
#include "linear_pack.h"
#include "linear_problem.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

// The pixels that each output pixel sees, in the order ky, kx, c.
class Windows final : public TokenSource {
 public:
  Windows(const TensorView& x, const Conv2d& how)
      : x_(reinterpret_cast<const float*>(x.data)),
        stride_(x.row_stride),
        channels_(x.cols()),
        how_(how),
        out_height_(how.out_size(how.height)),
        out_width_(how.out_size(how.width)) {}

  void pack(int64_t token, int64_t present, int64_t col, int64_t count, float* dst,
            int64_t dst_stride) const override {
    Corner corners[kLanes];
    find_corners(token, present, corners);
    for (const int64_t end = col + count; col < end;) {
      const int64_t tap = col / channels_, channel = col % channels_;
      const int64_t piece = smaller(channels_ - channel, end - col);
      const int64_t ky = tap / how_.kernel, kx = tap % how_.kernel;
      const float* lines[kLanes];
      for (int i = 0; i < kLanes; ++i) lines[i] = line(corners[i], ky, kx, channel);
      pack_lines(lines, piece, dst, dst_stride);
      col += piece;
      dst += piece * dst_stride;
    }
  }

 private:
  // The upper left pixel of a window in its (upscaled) image.
  struct Corner {
    int64_t image;  // floats before it
    int64_t y, x;
  };

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
  int64_t out_height_, out_width_;
};

}  // namespace

void conv2d(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue,
            const Conv2d& how, Precision) {
  const bool pointwise =
      how.kernel == 1 && how.stride == 1 && how.upscale == 1 && how.pad_before == 0 && how.pad_after == 0;
  if (pointwise) return linear_fp32(context, out, x, w, epilogue);
  const LinearProblem p = make_linear_problem(out.rows(), w);
  if (p.m == 0 || p.n == 0) return;
  linear_many_tokens(context, p, Windows(x, how), out, epilogue);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
