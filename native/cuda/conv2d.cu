// conv2d as a matmul: a row of x is an output pixel with the kernel² input pixels that it sees, zeros outside
// of the image. It exists only in the matmul's tiles. conv_weight brings weights into the order ky, kx, c.
#include "conv.h"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;

// Column k of row `pixel`: tap ky, kx, then channel.
struct Windows {
  Numbers x;
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
    return x.load(at * stride + k % channels);
  }
};

void run_simt(const Context& context, const ConvProblem& p) {
  const Windows windows = {
      {p.x.data, p.x.dtype},      p.x.row_stride, p.channels(), p.how, p.how.out_size(p.how.height),
      p.how.out_size(p.how.width)};
  matmul_simt(context, "conv2d_simt_64x64", p.size, windows, p.w, p.epilogue);
}

constexpr double kSlow = 1e18;  // whatever a tensor core's tiles cost, it is less

constexpr Variant<ConvProblem> kVariants[] = {
    {"simt_64x64", [](const ConvProblem&) { return kSlow; }, run_simt},
};

bool is_linear(const Conv2d& how) {
  return how.kernel == 1 && how.stride == 1 && how.upscale == 1 && how.pad_before == 0 && how.pad_after == 0;
}

// out[r, tap, c] = w[r, c, tap]. A thread to a number of `out`; `across` blocks to a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    conv_weight_kernel(T* out, const T* w, int64_t w_stride, uint32_t cols, uint32_t taps, Divisor channels,
                       Divisor across) {
  uint32_t chunk = blockIdx.x;
  const int64_t r = across.divide(chunk);
  const uint32_t col = chunk * kThreads + threadIdx.x;
  if (col >= cols) return;
  uint32_t c = col;
  const uint32_t tap = channels.divide(c);
  out[r * cols + col] = w[r * w_stride + int64_t{c} * taps + tap];
}

template <typename T>
void turn_weight(const Context& context, const TensorView& out, const TensorView& w, int64_t taps) {
  if (w.elements() == 0) return;
  const int64_t cols = w.cols(), across = ceil_div(cols, kThreads);
  require(cols < int64_t{1} << 31, "conv_weight: rows of ", cols, " are longer than a GPU's kernel counts");
  launch(context.stream, {"conv_weight", w.rows() * across, kThreads}, conv_weight_kernel<T>, out.as<T>(),
         w.as<const T>(), w.row_stride, static_cast<uint32_t>(cols), static_cast<uint32_t>(taps),
         Divisor(cols / taps), Divisor(across));
}

}  // namespace

// out: activations [batch * out_height * out_width, n]; x: activations [batch * height * width, c]; w: [n,
// kernel² * c]
void conv2d(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue,
            const Conv2d& how, Precision precision) {
  if (out.elements() == 0) return;
  if (is_linear(how) && forced_variant("conv2d").empty())
    return linear(context, out, x, w, epilogue, precision);
  const PlainVector bias(context, epilogue.bias);
  const ConvProblem problem = {.size = {out.rows(), w.shape[0], w.shape[1]},
                               .x = x,
                               .w = w,
                               .how = how,
                               .epilogue = make_row_epilogue(out, epilogue, bias),
                               .precision = precision == Precision::kInt8 ? Precision::kFp32 : precision,
                               .arch = context.arch,
                               .multiprocessors = context.multiprocessors};
  run_variant<ConvProblem>(context, "conv2d", {conv_mma_variants(), kVariants}, problem);
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
