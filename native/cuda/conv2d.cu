// conv2d as a matmul: a row of x is an output pixel with the kernel² input pixels that it sees, zeros outside
// of the image. It exists only in the matmul's tiles. conv_weight brings weights into the order ky, kx, c.
#include <optional>

#include "launch.h"
#include "matmul_tile.cuh"
#include "variant.h"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;

// Column k of row `pixel`: tap ky, kx, then channel.
struct Windows {
  const float* x;
  int64_t stride, channels;
  Conv2d how;
  int64_t out_height, out_width;

  __device__ __forceinline__ float operator()(int64_t pixel, int64_t k) const {
    const int64_t tap = k / channels, ky = tap / how.kernel, kx = tap % how.kernel;
    const int64_t out_y = pixel / out_width % out_height, out_x = pixel % out_width;
    const int64_t y = out_y * how.stride - how.pad_before + ky,
                  column = out_x * how.stride - how.pad_before + kx;
    if (y < 0 || column < 0 || y >= how.height * how.upscale || column >= how.width * how.upscale) return 0;
    const int64_t image = pixel / out_width / out_height;
    const int64_t at = (image * how.height + y / how.upscale) * how.width + column / how.upscale;
    return x[at * stride + k % channels];
  }
};

struct ConvProblem {
  MatmulSize size;
  Windows windows;
  TensorView w;
  RowEpilogue epilogue;
};

void run_simt(const Context& context, const ConvProblem& p) {
  matmul_simt(context, "conv2d_simt_64x64", p.size, p.windows, p.w, p.epilogue);
}

constexpr Variant<ConvProblem> kVariants[] = {
    {"simt_64x64", [](const ConvProblem&) { return true; }, run_simt},
};

// out[r, tap, c] = w[r, c, tap]
template <typename T>
__global__ void conv_weight_kernel(T* out, const T* w, int64_t w_stride, int64_t count, int64_t channels,
                                   int64_t taps) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t c = i % channels, tap = i / channels % taps, r = i / channels / taps;
  out[i] = w[r * w_stride + c * taps + tap];
}

template <typename T>
void turn_weight(const Context& context, const TensorView& out, const TensorView& w, int64_t taps) {
  launch(context.stream, {"conv_weight", ceil_div(w.elements(), kThreads), kThreads}, conv_weight_kernel<T>,
         out.as<T>(), w.as<const T>(), w.row_stride, w.elements(), w.cols() / taps, taps);
}

}  // namespace

// out: F32 [batch * out_height * out_width, n]; x: F32 [batch * height * width, c]; w: [n, kernel² * c]
void conv2d(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue,
            const Conv2d& how) {
  const PlainVector bias(context, epilogue.bias);
  const ConvProblem problem = {
      {out.rows(), w.shape[0], w.shape[1]},
      {x.as<float>(), x.row_stride, x.cols(), how, how.out_size(how.height), how.out_size(how.width)},
      w,
      make_row_epilogue(out, epilogue, bias)};
  run_variant(context, "conv2d", kVariants, problem);
}

// w: [n, c * taps] of any weight dtype; out: [n, taps * c], F32 or of w's dtype
void conv_weight(const Context& context, TensorView out, TensorView w, int64_t taps) {
  std::optional<Scratch> scratch;
  if (out.dtype != w.dtype) {
    TensorView floats = w;
    floats.dtype = DType::F32;
    floats.row_stride = w.cols();
    scratch.emplace(context.pool, dtype_bytes(DType::F32, w.elements()));
    floats.data = scratch->as<std::byte>();
    decode(context, floats, w);
    w = floats;
  }
  switch (info(w.dtype).bytes) {
    case 8:
      return turn_weight<uint64_t>(context, out, w, taps);
    case 4:
      return turn_weight<uint32_t>(context, out, w, taps);
    case 2:
      return turn_weight<uint16_t>(context, out, w, taps);
    default:
      return turn_weight<uint8_t>(context, out, w, taps);
  }
}

}  // namespace kotoba::cuda
