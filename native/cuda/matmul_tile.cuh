// The SIMT matmul that linear and conv2d share: out[m, n] = epilogue(Σ_k x[m, k] * w[n, k]) in FP32, summed
// in the order of k with fused multiply-adds. The fallback for every problem, and the judge of faster
// kernels.
#pragma once

#include <algorithm>

#include "epilogue.cuh"

namespace kotoba::cuda {

constexpr int kTileRows = 64, kTileCols = 64, kTileDepth = 16;  // of m, n, k
constexpr int kTileThreads = 256;                               // each sums 4 x 4 outputs

struct MatmulSize {
  int64_t m, n, k;
  int64_t tiles() const { return ceil_div(m, kTileRows) * ceil_div(n, kTileCols); }
};

// A block makes one tile of the output. x(row, k) and w(row, k) read single numbers inside of the matrices.
template <typename X, typename W>
__global__ void __launch_bounds__(kTileThreads)
    matmul_simt_64x64(MatmulSize size, X x, W w, RowEpilogue epilogue) {
  KOTOBA_SHARED(x_tile, float[kTileDepth][kTileRows + 4]);
  KOTOBA_SHARED(w_tile, float[kTileDepth][kTileCols + 4]);
  const int64_t across = (size.n + kTileCols - 1) / kTileCols;
  const int64_t m0 = blockIdx.x / across * kTileRows, n0 = blockIdx.x % across * kTileCols;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / 16 * 4, col = thread % 16 * 4;  // of the thread's outputs in the tile

  float acc[4][4] = {};
  for (int64_t k0 = 0; k0 < size.k; k0 += kTileDepth) {
    // Load: neighbouring threads read neighbouring k.
    for (int i = thread; i < kTileRows * kTileDepth; i += kTileThreads) {
      const int r = i / kTileDepth, d = i % kTileDepth;
      const bool k_inside = k0 + d < size.k;
      x_tile[d][r] = k_inside && m0 + r < size.m ? x(m0 + r, k0 + d) : 0;
      w_tile[d][r] = k_inside && n0 + r < size.n ? w(n0 + r, k0 + d) : 0;
    }
    __syncthreads();
    // Multiply.
    for (int d = 0; d < kTileDepth; ++d) {
      float a[4], b[4];
      for (int i = 0; i < 4; ++i) a[i] = x_tile[d][row + i];
      for (int j = 0; j < 4; ++j) b[j] = w_tile[d][col + j];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
    }
    __syncthreads();
  }
  // Store.
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      if (m0 + row + i < size.m && n0 + col + j < size.n)
        finish(epilogue, m0 + row + i, n0 + col + j, acc[i][j]);
}

// Rows of a matrix of a plain dtype.
template <typename Weight>
struct PlainRows {
  const typename Weight::Stored* data;
  int64_t stride;
  __device__ __forceinline__ float operator()(int64_t row, int64_t k) const {
    return Weight::decode(data[row * stride + k]);
  }
};

// Rows of activations.
struct ActivationRows {
  Numbers numbers;
  int64_t stride;
  __device__ __forceinline__ float operator()(int64_t row, int64_t k) const {
    return numbers.load(row * stride + k);
  }
};

inline ActivationRows activation_rows(const TensorView& x) { return {{x.data, x.dtype}, x.row_stride}; }

template <typename Weight>
PlainRows<Weight> plain_rows(const TensorView& w) {
  return {w.as<const typename Weight::Stored>(), w.row_stride};
}

// Columns [first, first + …) of what an epilogue works on.
inline RowEpilogue from_column(RowEpilogue e, int64_t first) {
  e.out.data += dtype_bytes(e.out.dtype, first);
  e.pairs = e.pairs && first % 2 == 0;
  e.quads = e.quads && first % 4 == 0;
  if (e.scale && !e.one_scale) e.scale += first;
  if (e.bias.data) e.bias.data += dtype_bytes(e.bias.dtype, first);
  if (e.multiply.data) e.multiply.data += dtype_bytes(e.multiply.dtype, first);
  if (e.add) e.add += first;
  return e;
}

// matmul(x, w of plain dtype), GGUF blocks decoded aside some rows at a time. `x` is what the kernel reads.
template <typename X>
void matmul_simt(const Context& context, const char* op, const MatmulSize& size, const X& x,
                 const TensorView& w, const RowEpilogue& epilogue) {
  if (is_plain(w.dtype))
    return dispatch_plain(w.dtype, op, [&]<typename Weight>() {
      launch(context.stream, {op, size.tiles(), kTileThreads}, matmul_simt_64x64<X, PlainRows<Weight>>, size,
             x, plain_rows<Weight>(w), epilogue);
    });
  constexpr int64_t kScratchBytes = int64_t{64} << 20;
  const int64_t at_once = std::max<int64_t>(kTileCols, kScratchBytes / 4 / std::max<int64_t>(size.k, 1));
  const int64_t most = std::min(at_once, size.n);
  const Scratch decoded(context.pool, dtype_bytes(DType::F32, most * size.k));
  for (int64_t first = 0; first < size.n; first += at_once) {
    TensorView rows = w, floats = w;
    rows.shape[0] = floats.shape[0] = std::min(at_once, size.n - first);
    rows.data = w.row_bytes(first);
    floats.data = decoded.as<std::byte>();
    floats.dtype = DType::F32;
    floats.row_stride = size.k;
    decode(context, floats, rows);
    const MatmulSize part = {size.m, rows.shape[0], size.k};
    launch(context.stream, {op, part.tiles(), kTileThreads}, matmul_simt_64x64<X, PlainRows<F32Number>>, part,
           x, plain_rows<F32Number>(floats), from_column(epilogue, first));
  }
}

}  // namespace kotoba::cuda
