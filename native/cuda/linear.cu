// linear: out [m, n] = activation(scale * (x [m, k] · w [n, k]ᵀ) + bias) * multiply + add, w of any dtype.
#include "launch.h"
#include "matmul_tile.cuh"
#include "reduce.cuh"
#include "variant.h"

namespace kotoba::cuda {
namespace {

struct LinearProblem {
  MatmulSize size;
  TensorView x, w;
  RowEpilogue epilogue;
  int arch;
};

// ---- few rows: a warp to an output column, its lanes along k; every weight is read once

constexpr int kFewRows = 8;
constexpr int kWarps = 4;  // to a block

// How a lane reads weights of a plain dtype: one at a time, neighbouring lanes side by side.
template <typename Weight>
struct PlainChunks {
  static constexpr int kWeights = 1;
  static __device__ __forceinline__ void read(const std::byte* row, int64_t chunk, float* w) {
    w[0] = Weight::decode(reinterpret_cast<const typename Weight::Stored*>(row)[chunk]);
  }
};
template <typename Block>
struct BlockChunks {
  static constexpr int kWeights = Block::kWeights;
  static __device__ __forceinline__ void read(const std::byte* row, int64_t chunk, float* w) {
    decode_block(reinterpret_cast<const Block*>(row)[chunk], w);
  }
};

template <typename Chunks>
__global__ void __launch_bounds__(32 * kWarps)
    linear_few_rows(MatmulSize size, const float* x, int64_t x_stride, const std::byte* w,
                    int64_t w_row_bytes, RowEpilogue epilogue) {
  const int64_t n = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (n >= size.n) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float acc[kFewRows] = {};
  for (int64_t chunk = lane; chunk < size.k / Chunks::kWeights; chunk += 32) {
    float weights[Chunks::kWeights];
    Chunks::read(w + n * w_row_bytes, chunk, weights);
    const float* column = x + chunk * Chunks::kWeights;
    KOTOBA_UNROLL(unroll 1)
    for (int i = 0; i < Chunks::kWeights; ++i) {
      const float weight = weights[i];
      for (int r = 0; r < kFewRows; ++r)
        if (r < size.m) acc[r] = fmaf(column[r * x_stride + i], weight, acc[r]);
    }
  }
  for (int r = 0; r < kFewRows; ++r) {
    const float sum = warp_sum(acc[r]);
    if (r < size.m && lane == r) finish(epilogue, r, n, sum);
  }
}

bool has_few_rows(const LinearProblem& p) { return p.size.m <= kFewRows; }

void run_few_rows(const Context& context, const LinearProblem& p) {
  const auto run = [&]<typename Chunks>() {
    launch(context.stream, {"linear_few_rows", ceil_div(p.size.n, kWarps), 32 * kWarps},
           linear_few_rows<Chunks>, p.size, p.x.as<float>(), p.x.row_stride, p.w.data,
           dtype_bytes(p.w.dtype, p.w.row_stride), p.epilogue);
  };
  if (is_plain(p.w.dtype))
    dispatch_plain(p.w.dtype, "linear",
                   [&]<typename Weight>() { run.template operator()<PlainChunks<Weight>>(); });
  else
    dispatch_block(p.w.dtype, "linear",
                   [&]<typename Block>() { run.template operator()<BlockChunks<Block>>(); });
}

// ---- any problem

void run_simt(const Context& context, const LinearProblem& p) {
  matmul_simt(context, "linear_simt_64x64", p.size, plain_rows<F32Weight>(p.x), p.w, p.epilogue);
}

constexpr Variant<LinearProblem> kVariants[] = {
    {"few_rows", has_few_rows, run_few_rows},
    {"simt_64x64", [](const LinearProblem&) { return true; }, run_simt},
};

}  // namespace

void linear(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue) {
  const PlainVector bias(context, epilogue.bias);
  const LinearProblem problem = {
      {x.rows(), w.shape[0], x.cols()}, x, w, make_row_epilogue(out, epilogue, bias), context.arch};
  run_variant(context, "linear", kVariants, problem);
}

}  // namespace kotoba::cuda
