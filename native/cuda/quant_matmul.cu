// linear of GGUF weights in 16-bit precision, decoded on their way to the tensor cores (quant_mma.cuh). For
// numbers of rows at which reading expanded weights would cost more than decoding packed ones again and
// again.
#include "linear.h"
#include "operands.h"
#include "quant_mma.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
// From here on expanding the weights and multiplying with the dense kernels is expected to be faster.
constexpr int64_t kMostRows = 320, kSmallTileRows = 16;

// The sums of the splits, in order; a thread to an output.
__global__ void __launch_bounds__(kThreads) add_splits_kernel(QuantMatmul p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x, count = p.size.m * p.size.n;
  if (i >= count) return;
  float sum = p.partials[i];
  for (int64_t s = 1; s < p.splits; ++s) sum += p.partials[s * count + i];
  finish(p.epilogue, i / p.size.n, i % p.size.n, sum);
}

QuantMatmul problem_of(const LinearProblem& p, const Operand& x) {
  QuantMatmul q = {};
  q.size = p.size;
  q.x = x.data;
  q.x_stride = x.stride;
  q.w = p.w.data;
  q.w_type = p.w.dtype;
  q.w_row_bytes = dtype_bytes(p.w.dtype, p.w.row_stride);
  q.epilogue = p.epilogue;
  return q;
}

// Tiles of rows as even as possible; k is split where there are too few tiles for the multiprocessors.
void share_out(QuantMatmul& q, int most_rows, int cols, int64_t blocks) {
  q.row_tiles = ceil_div(q.size.m, most_rows);
  q.tile_rows = static_cast<int>(ceil_div(ceil_div(q.size.m, q.row_tiles), 16) * 16);
  q.row_tiles = ceil_div(q.size.m, q.tile_rows);
  q.col_tiles = ceil_div(q.size.n, cols);
  const int64_t steps = ceil_div(q.size.k, kStepWeights);
  q.splits = std::clamp<int64_t>(blocks / (q.row_tiles * q.col_tiles), 1, std::max<int64_t>(steps / 2, 1));
  q.split_steps = ceil_div(steps, q.splits);
  q.splits = std::max<int64_t>(ceil_div(steps, std::max<int64_t>(q.split_steps, 1)), 1);
}

template <typename Source, typename Number, int kFrags, int kTiles>
void run_tiles(const Context& context, QuantMatmul q, int64_t blocks_to_multiprocessor) {
  using Mma = QuantMma<Source, Number, kFrags, kTiles>;
  share_out(q, 8 * kTiles, Mma::kCols, blocks_to_multiprocessor * context.multiprocessors);
  std::optional<Scratch> partials;
  if (q.splits > 1) {
    partials.emplace(context.pool, 4 * q.splits * q.size.m * q.size.n);
    q.partials = partials->as<float>();
  }
  launch(context.stream, {"quant_mma", q.row_tiles * q.col_tiles * q.splits, kQuantThreads, Mma::kShared},
         quant_mma_kernel<Source, Number, kFrags, kTiles>, q);
  if (q.splits > 1)
    launch(context.stream, {"add_splits", ceil_div(q.size.m * q.size.n, kThreads), kThreads},
           add_splits_kernel, q);
}

}  // namespace

bool quant_matmul_fits(const LinearProblem& p) {
  const bool is_full = p.w.dtype == DType::Q5_K || p.w.dtype == DType::Q6_K;  // see fills_registers()
  const int64_t most_rows = is_full && p.arch >= 100 ? kSmallTileRows : kMostRows;
  return p.is_16_bit() && !is_plain(p.w.dtype) && p.size.m <= most_rows && has_aligned_blocks(p.w);
}

void run_quant_matmul(const Context& context, const LinearProblem& p) {
  const Operand x = activation_operand(context, p.x, p.rounded());
  const QuantMatmul q = problem_of(p, x);
  dispatch_16_bit(p.rounded(), "linear", [&]<typename Number>() {
    dispatch_source(p.w.dtype, [&]<typename Source>() {
      if constexpr (std::is_same_v<Source, RareSource>)
        run_tiles<Source, Number, 1, 10>(context, q, 1);
      else if (p.size.m <= 16)
        run_tiles<Source, Number, 1, 2>(context, q, 2);
      else
        run_tiles<Source, Number, 2, 10>(context, q, 1);
    });
  });
}

}  // namespace kotoba::cuda
