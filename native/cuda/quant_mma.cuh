// The kernel of quant_matmul.cu. Weights are the left operand of the tensor cores: a lane decodes chunks of
// its own rows from global memory straight into the registers that mma.sync wants, in the order of k in which
// chunks hold them; x is brought into shared memory in that same order. So no decoded weight is ever stored.
//
// A block has two groups of four warps, each for half of a step's 256 k; a warp has 16 kFrags rows of w.
// Lane 4g + t decodes, of rows g and g + 8 of every 16, the chunk t of its group's four.
#pragma once

#include "epilogue.cuh"
#include "matmul_tile.cuh"
#include "quant_sources.cuh"

namespace kotoba::cuda {

constexpr int kQuantThreads = 256;
constexpr int kStepWeights = 256;                          // k of a step
constexpr int kStepChunks = kStepWeights / kChunkWeights;  // of a row
constexpr int kPiece = 16, kPieces = 16;                   // bytes of a run of x; runs of a group's k

struct QuantMatmul {
  MatmulSize size;
  const uint16_t* x;  // [m, k], rows at multiples of 16 bytes
  int64_t x_stride;   // numbers
  const std::byte* w;
  DType w_type;
  int64_t w_row_bytes;
  int tile_rows;  // of out to a block, a multiple of 16
  int64_t row_tiles, col_tiles;
  int64_t splits, split_steps;  // of k
  float* partials;              // [splits, m, n] if there are several
  RowEpilogue epilogue;
};

template <typename Number>
__device__ __forceinline__ void mma_16_bit(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<Number, F16Number>)
    ptx::mma_m16n8k16_f16(d, a, {b0, b1});
  else
    ptx::mma_m16n8k16_bf16(d, a, {b0, b1});
}

// kFrags: 16 rows of w each to a warp; kTiles: 8 rows of x each to a block, at most and an even number.
template <typename Source, typename Number, int kFrags, int kTiles>
struct QuantMma {
  static constexpr int kCols = 4 * 16 * kFrags;  // of out to a block
  static constexpr int kStages = kTiles > 2 ? 2 : 4;
  static constexpr int kRowBytes = 2 * kPieces * kPiece;
  static constexpr int kStageBytes = kTiles * 8 * kRowBytes;
  static constexpr int kPitch = kCols + 4;  // floats of a row of the tile of sums
  static constexpr int kShared = std::max(kStages * kStageBytes, kTiles * 8 * kPitch * 4);
  using Raw = uint32_t[kFrags][2][Source::kWords];
  using Sums = float[kFrags][kTiles][4];

  // Run r of chunk t of a group is piece 4r + t of a row, so that four lanes read 64 consecutive bytes; odd
  // rows have them 64 bytes further, in the other half of the banks.
  static __device__ __forceinline__ int piece_at(int row, int group, int piece) {
    return row * kRowBytes + (group * kPieces + (piece ^ (row & 1) << 2)) * kPiece;
  }

  // What a thread copies of x: one piece of every eighth row.
  struct Copies {
    const uint16_t* from;  // in the tile's row `row`, at its piece of the first step
    int64_t eight_rows;    // numbers
    int row, rows;         // the first, and how many there are of the tile
    int64_t k_left;        // numbers from the piece's first to the end of a row
    int to;                // bytes
  };

  static __device__ __forceinline__ Copies copies_of(const Source& source, const QuantMatmul& p, int64_t m0) {
    const int piece = static_cast<int>(threadIdx.x) % kPieces;
    const int group = static_cast<int>(threadIdx.x) / kPieces % 2;
    const int64_t k = source.run_start(4 * group + piece % 4, piece / 4);
    Copies c;
    c.row = static_cast<int>(threadIdx.x) / (2 * kPieces);
    c.from = p.x + (m0 + c.row) * p.x_stride + k;
    c.eight_rows = 8 * p.x_stride;
    c.rows = static_cast<int>(std::min<int64_t>(p.size.m - m0, p.tile_rows));
    c.k_left = p.size.k - k;
    c.to = piece_at(c.row, group, piece);
    return c;
  }

  // Starts the copies of a step's x; zeros outside of the matrix and from the step `end` on.
  static __device__ __forceinline__ void load_x(std::byte* stage, const Copies& c, int tile_rows,
                                                unsigned step, unsigned end) {
    const int64_t k = int64_t{step} * kStepWeights;
    const bool present = step < end && k < c.k_left;
    const uint16_t* from = c.from + k;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kTiles; ++i) {
      if (i % 2 == 0 && 8 * i >= tile_rows) break;
      ptx::cp_async_16(stage + c.to + i * 8 * kRowBytes, from, present && c.row + 8 * i < c.rows);
      from += c.eight_rows;
    }
    ptx::cp_async_commit();
  }

  // Chunk `chunk` of the lane's rows; zeros, which decode to zeros, past the end of the rows.
  static __device__ __forceinline__ void load_w(const Source& source,
                                                const std::byte* const (&rows)[kFrags][2], unsigned chunk,
                                                bool inside, Raw& raw) {
    KOTOBA_UNROLL(unroll)
    for (int f = 0; f < kFrags; ++f)
      for (int half = 0; half < 2; ++half) {
        KOTOBA_UNROLL(unroll)
        for (int i = 0; i < Source::kWords; ++i) raw[f][half][i] = 0;
        if (inside) source.load(rows[f][half], chunk, raw[f][half]);
      }
  }

  static __device__ __forceinline__ void multiply(const Source& source, const Raw& raw, unsigned chunk,
                                                  const std::byte* stage, int group, int tile_rows,
                                                  Sums& sums) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    Scales s[kFrags][2];
    KOTOBA_UNROLL(unroll)
    for (int f = 0; f < kFrags; ++f)
      for (int half = 0; half < 2; ++half) source.scales(raw[f][half], chunk, s[f][half]);
    KOTOBA_UNROLL(unroll)
    for (int run = 0; run < kRuns; ++run) {
      uint32_t a[kFrags][2][4];  // weights 0…3 and 4…7 of the run
      KOTOBA_UNROLL(unroll)
      for (int f = 0; f < kFrags; ++f)
        for (int half = 0; half < 2; ++half) {
          float w[kRunWeights];
          source.values(raw[f][half], chunk, run, s[f][half], w);
          KOTOBA_UNROLL(unroll)
          for (int i = 0; i < 4; ++i) a[f][i / 2][i % 2 * 2 + half] = Number::pack(w[2 * i], w[2 * i + 1]);
        }
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < kTiles; ++i) {
        if (i % 2 == 0 && 8 * i >= tile_rows) break;
        const uint4 b = *reinterpret_cast<const uint4*>(stage + piece_at(8 * i + g, group, 4 * run + t));
        KOTOBA_UNROLL(unroll)
        for (int f = 0; f < kFrags; ++f) {
          mma_16_bit<Number>(sums[f][i], a[f][0], b.x, b.y);
          mma_16_bit<Number>(sums[f][i], a[f][1], b.z, b.w);
        }
      }
    }
  }

  // Puts or adds the warp's sums into the tile, row by row of out.
  template <bool kAdd>
  static __device__ __forceinline__ void put(float* tile, const Sums& sums, int tile_rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32 % 4;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kTiles; ++i) {
      if (8 * i >= tile_rows) break;
      KOTOBA_UNROLL(unroll)
      for (int f = 0; f < kFrags; ++f)
        for (int r = 0; r < 4; ++r) {
          const int row = 8 * i + lane % 4 * 2 + r % 2, col = (warp * kFrags + f) * 16 + lane / 4 + r / 2 * 8;
          float& to = tile[row * kPitch + col];
          to = kAdd ? sums[f][i][r] + to : sums[f][i][r];
        }
    }
  }
};

template <typename Source, typename Number, int kFrags, int kTiles>
__device__ __forceinline__ void multiply_quantised(const QuantMatmul& p) {
  using Mma = QuantMma<Source, Number, kFrags, kTiles>;
  KOTOBA_DYNAMIC_SHARED(shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int group = warp / 4;
  const int64_t m0 = blockIdx.x % p.row_tiles * p.tile_rows;
  const int64_t rest = blockIdx.x / p.row_tiles, split = rest / p.col_tiles;
  const int64_t n0 = rest % p.col_tiles * Mma::kCols;
  const auto chunks = static_cast<unsigned>(p.size.k / kChunkWeights);
  const auto begin = static_cast<unsigned>(split * p.split_steps);
  const unsigned end =
      std::min(begin + static_cast<unsigned>(p.split_steps), (chunks + kStepChunks - 1) / kStepChunks);

  const std::byte* rows[kFrags][2];
  KOTOBA_UNROLL(unroll)
  for (int f = 0; f < kFrags; ++f)
    for (int half = 0; half < 2; ++half) {
      const int64_t n = n0 + (warp % 4 * kFrags + f) * 16 + half * 8 + lane / 4;
      rows[f][half] = p.w + std::min(n, p.size.n - 1) * p.w_row_bytes;
    }
  const auto own = static_cast<unsigned>(4 * group + lane % 4);  // of a step's chunks
  const Source source(p.w_type);
  const typename Mma::Copies copies = Mma::copies_of(source, p, m0);

  // Fill the pipeline.
  for (unsigned s = begin; s < begin + Mma::kStages - 1; ++s)
    Mma::load_x(shared + (s - begin) * Mma::kStageBytes, copies, p.tile_rows, s, end);
  typename Mma::Raw raw;
  Mma::load_w(source, rows, begin * kStepChunks + own, begin * kStepChunks + own < chunks, raw);
  typename Mma::Sums sums = {};
  int stage = 0;
  for (unsigned step = begin; step < end; ++step) {
    ptx::cp_async_wait<Mma::kStages - 2>();
    __syncthreads();  // this stage is there, and nobody reads the one before any more
    Mma::load_x(shared + (stage + Mma::kStages - 1) % Mma::kStages * Mma::kStageBytes, copies, p.tile_rows,
                step + Mma::kStages - 1, end);
    typename Mma::Raw next;
    const unsigned next_chunk = (step + 1) * kStepChunks + own;
    Mma::load_w(source, rows, next_chunk, step + 1 < end && next_chunk < chunks, next);
    Mma::multiply(source, raw, own, shared + stage * Mma::kStageBytes, group, p.tile_rows, sums);
    KOTOBA_UNROLL(unroll)
    for (int f = 0; f < kFrags; ++f)
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < Source::kWords; ++i) raw[f][half][i] = next[f][half][i];
    stage = (stage + 1) % Mma::kStages;
  }
  ptx::cp_async_wait<0>();
  __syncthreads();

  // The two groups' sums, always in the same order.
  auto* tile = reinterpret_cast<float*>(shared);
  if (group == 1) Mma::template put<false>(tile, sums, p.tile_rows);
  __syncthreads();
  if (group == 0) Mma::template put<true>(tile, sums, p.tile_rows);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < p.tile_rows * Mma::kCols; i += kQuantThreads) {
    const int row = i / Mma::kCols, col = i % Mma::kCols;
    const int64_t m = m0 + row, n = n0 + col;
    if (m >= p.size.m || n >= p.size.n) continue;
    const float sum = tile[row * Mma::kPitch + col];
    if (p.partials)
      p.partials[(split * p.size.m + m) * p.size.n + n] = sum;
    else
      finish(p.epilogue, m, n, sum);
  }
}

// The large tile of these types takes every register up to sm_90; ptxas wants a few more on Blackwell, where
// it is left out rather than spill them.
template <typename Source>
constexpr bool fills_registers() {
  if constexpr (requires { Source::kFillsRegisters; }) return Source::kFillsRegisters;
  return false;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool kHasFullTiles = false;
#else
constexpr bool kHasFullTiles = true;
#endif

template <typename Source, typename Number, int kFrags, int kTiles>
__global__ void __launch_bounds__(kQuantThreads, kTiles > 2 ? 1 : 2) quant_mma_kernel(QuantMatmul p) {
  if constexpr (kHasFullTiles || kTiles <= 2 || !fills_registers<Source>())
    multiply_quantised<Source, Number, kFrags, kTiles>(p);
}

}  // namespace kotoba::cuda
