// linear with at most 16 rows: every weight is read once, in its stored type, and used for all rows.
//
// Warps take two columns of the output at a time, or share them along k, their lanes side by side in chunks
// of the weights. x lies in shared memory as floats, in the order in which lanes read it. What is the same
// for a run of weights, w = scale * (code - bias) + shift, is applied to sums over the run:
//   Σ x w = scale * Σ x code + (shift - scale * bias) * Σ x
#include "gemv_sources.cuh"
#include "linear.h"
#include "reduce.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kMostRows = 16, kRowsAtOnce = 8;
constexpr int kCols = 2;                            // of a warp
constexpr int64_t kSliceBytes = int64_t{72} << 10;  // of shared memory for x

// So few that two blocks of a multiprocessor keep everything in registers.
constexpr int threads_for(int rows) { return rows == 1 ? 320 : 192; }
constexpr int kBlocksToMultiprocessor = 2;

struct Gemv {
  MatmulSize size;
  int64_t first_row;
  Numbers x;
  int64_t x_stride;
  bool x_aligned;  // runs of 8 may be read in 16-byte pieces
  DType rounded;   // what x is rounded to; F32: nothing
  const std::byte* w;
  int64_t w_row_bytes;
  bool w_aligned;   // likewise, of plain weights
  unsigned chunks;  // of a row
  unsigned slice;   // of them in shared memory at once
  int splits;       // warps that share their columns along k
  int64_t groups;   // of columns, one for a block at a time
  RowEpilogue epilogue;
};

// x in shared memory: run r of chunk c of a row is at [row][2r][c] and [row][2r + 1][c], its sum at
// [row][r][c]. One more than a multiple of 32 in the last dimension keeps writers out of each other's banks.
template <typename Source, int kRows>
struct Staged {
  float4* x;
  float* sums;
  int pitch;

  static constexpr int64_t chunk_bytes() { return kRows * Source::kRuns * (32 + 4); }

  __device__ __forceinline__ Staged(std::byte* shared, unsigned slice) : pitch(static_cast<int>(slice) + 1) {
    x = reinterpret_cast<float4*>(shared);
    sums = reinterpret_cast<float*>(x + kRows * Source::kRuns * 2 * pitch);
  }
  __device__ __forceinline__ const float4& half(int row, int run, int which, int chunk) const {
    return x[((row * Source::kRuns + run) * 2 + which) * pitch + chunk];
  }
  __device__ __forceinline__ float& sum(int row, int run, int chunk) const {
    return sums[(row * Source::kRuns + run) * pitch + chunk];
  }
};

// v = x[row, col…col + 8), zeros outside of the matrix, rounded if asked for.
__device__ __forceinline__ void read_run(const Gemv& g, int64_t row, int64_t col, float (&v)[8]) {
  const int64_t at = row * g.x_stride + col;
  if (row < g.size.m && g.x_aligned && col + 8 <= g.size.k) {
    load_eight(g.x, at, v);
  } else {
    for (int i = 0; i < 8; ++i) v[i] = row < g.size.m && col + i < g.size.k ? g.x.load(at + i) : 0;
  }
  if (g.rounded == g.x.dtype) return;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 8; ++i) {
    if (g.rounded == DType::F16) v[i] = ptx::f16_to_f32(F16Number::encode(v[i]));
    if (g.rounded == DType::BF16) v[i] = bf16_to_f32(BF16Number::encode(v[i]));
  }
}

template <typename Source, int kRows>
__device__ __forceinline__ void stage(const Gemv& g, const Staged<Source, kRows>& to, unsigned first,
                                      int count) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * count * Source::kRuns; i += threads_for(kRows)) {
    const int run = i % Source::kRuns, rest = i / Source::kRuns;
    const int row = rest / count, chunk = rest % count;
    float v[8];
    read_run(g, g.first_row + row, Source::run_start(first + chunk, run), v);
    const int at = ((row * Source::kRuns + run) * 2) * to.pitch + chunk;
    to.x[at] = make_float4(v[0], v[1], v[2], v[3]);
    to.x[at + to.pitch] = make_float4(v[4], v[5], v[6], v[7]);
    if (Source::kSums)
      to.sum(row, run, chunk) = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
  }
}

template <typename Source>
using Raw = uint32_t[kCols][Source::kWords];

// Adds one chunk of the two columns to the sums of the rows.
template <typename Source, int kRows>
__device__ __forceinline__ void add_chunk(const Raw<Source>& raw, const Staged<Source, kRows>& staged,
                                          unsigned lane, int at, int rows, float (&acc)[kRows][kCols]) {
  typename Source::Factors factors[kCols];
  KOTOBA_UNROLL(unroll)
  for (int c = 0; c < kCols; ++c) factors[c] = Source::factors(raw[c], lane);
  KOTOBA_UNROLL(unroll)
  for (int run = 0; run < Source::kRuns; ++run) {
    float v[kCols][8];
    KOTOBA_UNROLL(unroll)
    for (int c = 0; c < kCols; ++c) Source::values(raw[c], lane, run, v[c]);
    KOTOBA_UNROLL(unroll)
    for (int row = 0; row < kRows; ++row) {
      if (row >= rows) break;
      const float4 low = staged.half(row, run, 0, at), high = staged.half(row, run, 1, at);
      const float sum = Source::kSums ? staged.sum(row, run, at) : 0;
      KOTOBA_UNROLL(unroll)
      for (int c = 0; c < kCols; ++c) {
        float dot = low.x * v[c][0];
        dot = fmaf(low.y, v[c][1], dot);
        dot = fmaf(low.z, v[c][2], dot);
        dot = fmaf(low.w, v[c][3], dot);
        dot = fmaf(high.x, v[c][4], dot);
        dot = fmaf(high.y, v[c][5], dot);
        dot = fmaf(high.z, v[c][6], dot);
        dot = fmaf(high.w, v[c][7], dot);
        acc[row][c] = Source::add(factors[c], run, dot, sum, acc[row][c]);
      }
    }
  }
}

// The sums over lanes and over the warps that share the columns, in a fixed order; then the epilogue.
template <int kRows>
__device__ __forceinline__ void finish_columns(const Gemv& g, float (&acc)[kRows][kCols], int64_t n,
                                               int split) {
  constexpr int kSums = kRows * kCols;
  KOTOBA_SHARED(parts, float[threads_for(kRows) / 32][kSums]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  float own = 0;  // lane row * kCols + c
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kSums; ++i) {
    const float sum = warp_sum(acc[i / kCols][i % kCols]);
    if (lane == i) own = sum;
  }
  if (g.splits > 1) {
    if (lane < kSums) parts[warp][lane] = own;
    __syncthreads();
    if (split == 0 && lane < kSums)
      for (int i = 1; i < g.splits; ++i) own += parts[warp + i][lane];
    __syncthreads();  // parts may be written again
  }
  const int64_t row = g.first_row + lane / kCols, col = n + lane % kCols;
  if (split == 0 && lane < kSums && row < g.size.m && col < g.size.n) finish(g.epilogue, row, col, own);
}

template <typename Source, int kRows>
__global__ void __launch_bounds__(threads_for(kRows), kBlocksToMultiprocessor) gemv_kernel(Gemv g) {
  KOTOBA_DYNAMIC_SHARED(shared);
  const Staged<Source, kRows> staged(shared, g.slice);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto own = static_cast<unsigned>(lane);
  const int split = warp % g.splits, step = 32 * g.splits;
  const int rows = static_cast<int>(std::min<int64_t>(kRows, g.size.m - g.first_row));
  const int group_cols = threads_for(kRows) / 32 / g.splits * kCols;

  for (int64_t group = blockIdx.x; group < g.groups; group += gridDim.x) {
    const int64_t n = group * group_cols + warp / g.splits * kCols;
    const std::byte* columns[kCols];
    KOTOBA_UNROLL(unroll)
    for (int c = 0; c < kCols; ++c) columns[c] = g.w + std::min(n + c, g.size.n - 1) * g.w_row_bytes;
    float acc[kRows][kCols] = {};
    for (unsigned first = 0; first < g.chunks; first += g.slice) {
      const int count = static_cast<int>(std::min(g.slice, g.chunks - first));
      int at = split * 32 + lane;
      uint32_t raw[kCols][Source::kWords];
      KOTOBA_UNROLL(unroll)
      for (int c = 0; c < kCols; ++c)
        if (at < count) Source::load(columns[c], first + at, own, g.size.k, g.w_aligned, raw[c]);
      if (g.chunks > g.slice || group == blockIdx.x) {
        __syncthreads();  // nobody reads the last slice any more
        stage(g, staged, first, count);
        __syncthreads();
      }
      for (; at < count; at += step) {
        const int later = at + step < count ? at + step : at;  // the last one is read again, and not used
        uint32_t next[kCols][Source::kWords];
        KOTOBA_UNROLL(unroll)
        for (int c = 0; c < kCols; ++c)
          Source::load(columns[c], first + later, own, g.size.k, g.w_aligned, next[c]);
        add_chunk<Source, kRows>(raw, staged, own, at, rows, acc);
        KOTOBA_UNROLL(unroll)
        for (int c = 0; c < kCols; ++c)
          for (int i = 0; i < Source::kWords; ++i) raw[c][i] = next[c][i];
      }
    }
    finish_columns<kRows>(g, acc, n, split);
  }
}

// ---- launching

Gemv gemv_of(const LinearProblem& p) {
  Gemv g = {};
  g.size = p.size;
  g.x = {p.x.data, p.x.dtype};
  g.x_stride = p.x.row_stride;
  g.x_aligned = reinterpret_cast<uintptr_t>(p.x.data) % 16 == 0 && p.x.row_stride % 8 == 0;
  g.rounded = p.is_16_bit() ? p.rounded() : p.x.dtype;
  g.w = p.w.data;
  g.w_row_bytes = dtype_bytes(p.w.dtype, p.w.row_stride);
  g.w_aligned = reinterpret_cast<uintptr_t>(p.w.data) % 16 == 0 && g.w_row_bytes % 16 == 0;
  g.epilogue = p.epilogue;
  return g;
}

// Warps share columns where there are too few of them to keep all multiprocessors busy.
void share_out(Gemv& g, int warps, int64_t blocks) {
  g.splits = 1;
  while (warps % (2 * g.splits) == 0 && ceil_div(g.size.n, kCols * warps / g.splits) < blocks &&
         2 * 32 * g.splits <= static_cast<int>(std::min(g.slice, g.chunks)))
    g.splits *= 2;
  g.groups = ceil_div(g.size.n, kCols * warps / g.splits);
}

template <typename Source, int kRows>
void run_rows(const Context& context, Gemv g) {
  using Shared = Staged<Source, kRows>;
  g.chunks = Source::chunks(g.size.k);
  g.slice = std::min(g.chunks, static_cast<unsigned>(kSliceBytes / Shared::chunk_bytes() / 32 * 32));
  const int64_t blocks = int64_t{kBlocksToMultiprocessor} * context.multiprocessors;
  share_out(g, threads_for(kRows) / 32, blocks);
  launch(context.stream,
         {"gemv", std::min(g.groups, blocks), threads_for(kRows),
          (int64_t{g.slice} + 1) * Shared::chunk_bytes()},
         gemv_kernel<Source, kRows>, g);
}

template <typename Source>
void run_source(const Context& context, Gemv g) {
  if (g.size.m == 1) return run_rows<Source, 1>(context, g);
  for (; g.first_row < g.size.m; g.first_row += kRowsAtOnce) run_rows<Source, kRowsAtOnce>(context, g);
}

}  // namespace

// In 16-bit precision tensor cores take over early: from the third row on where quant_matmul.cu decodes
// weights for them, else where two passes would be needed.
bool gemv_fits(const LinearProblem& p) {
  const int64_t most = !p.is_16_bit() ? kMostRows : is_plain(p.w.dtype) ? kRowsAtOnce : 2;
  return p.size.m <= most && has_aligned_blocks(p.w);
}

void run_gemv(const Context& context, const LinearProblem& p) {
  const Gemv g = gemv_of(p);
  if (is_plain(p.w.dtype))
    dispatch_plain(p.w.dtype, "linear",
                   [&]<typename Weight>() { run_source<PlainSource<Weight>>(context, g); });
  else
    dispatch_block(p.w.dtype, "linear",
                   [&]<typename Block>() { run_source<BlockSource<Block>>(context, g); });
}

}  // namespace kotoba::cuda
