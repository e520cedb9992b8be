// Ops that only move numbers: copy_tokens, embedding, transpose, and the check for finite values.
#include <optional>

#include "ops.h"
#include "quant_parts.cuh"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = kTileThreadCount;
constexpr int kTile = 32;
constexpr int kVector = 4;

__device__ __forceinline__ int64_t global_thread() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// ---- copy_tokens: units of 16 bytes where rows are made of them, else single numbers

template <typename Unit>
struct TokenCopy {
  Unit* out;
  const Unit* x;
  int64_t out_stride, x_stride, cols;  // units
  int64_t longer, x_tokens;            // tokens of a sequence of out, of x
  int64_t out_offset, x_offset, count;
  Divisor tokens;  // of a sequence, copied
};

template <typename Unit>
__global__ void __launch_bounds__(kThreads) copy_tokens_kernel(TokenCopy<Unit> p, RowTiles tiles) {
  const RowTiles::Place at = tiles.place<1>();
  if (at.row >= p.count) return;
  uint32_t token = static_cast<uint32_t>(at.row);
  const int64_t sequence = p.tokens.divide(token);
  const Unit* x = p.x + (sequence * p.x_tokens + p.x_offset + token) * p.x_stride;
  Unit* out = p.out + (sequence * p.longer + p.out_offset + token) * p.out_stride;
  Unit unit[kVectorsAtOnce];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (at.col + i * at.step < p.cols) unit[i] = x[at.col + i * at.step];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (at.col + i * at.step < p.cols) out[at.col + i * at.step] = unit[i];
}

// ---- embedding. Ids outside of the table are left to check_ids_kernel.

struct Lookup {
  float* out;
  int64_t out_stride;
  const std::byte* table;
  const int32_t* ids;
  int64_t tokens, rows, cols;
  bool accumulate;

  // The row of the table for a token; -1 if there is none.
  __device__ __forceinline__ int64_t row_of(int64_t token) const {
    const int64_t id = token < tokens ? ids[token] : -1;
    return id < rows ? id : -1;
  }
  template <int kCount>
  __device__ __forceinline__ void put(int64_t token, int64_t c, float (&v)[kCount]) const {
    float* at = out + token * out_stride + c;
    float before[kCount];
    if (accumulate) load_vector<F32Number>(before, at);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) v[i] = accumulate ? before[i] + v[i] : v[i];
    store_vector<F32Number>(at, v);
  }
};

template <typename Weight, int kCount>
__global__ void __launch_bounds__(kThreads) embedding_kernel(Lookup p, RowTiles tiles, int64_t table_stride) {
  const RowTiles::Place at = tiles.place<kCount>();
  const int64_t row = p.row_of(at.row);
  if (row < 0) return;
  const auto* from = reinterpret_cast<const typename Weight::Stored*>(p.table) + row * table_stride;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i) {
    const int64_t c = at.col + i * at.step;
    if (c >= p.cols) continue;
    float v[kCount];
    load_vector<Weight>(v, from + c);
    p.put(at.row, c, v);
  }
}

// A thread to 32 weights of a GGUF type. `wide`: four of them may be written at a time.
template <typename Block>
__global__ void __launch_bounds__(kThreads)
    embedding_blocks_kernel(Lookup p, RowTiles tiles, int64_t row_bytes, bool wide) {
  using Source = Chunks<Block>;
  const RowTiles::Place at = tiles.place<kChunkWeights>();
  const int64_t row = p.row_of(at.row);
  if (row < 0) return;
  KOTOBA_UNROLL(unroll 1)
  for (int64_t c = at.col, i = 0; i < kVectorsAtOnce && c < p.cols; ++i, c += at.step) {
    const auto chunk = static_cast<unsigned>(c / kChunkWeights);
    const int own = chunk_in_block<Block>(chunk);
    uint32_t raw[Source::kWords];
    Source::load(block_of_chunk<Block>(p.table + row * row_bytes, chunk), own, raw);
    Scales scales;
    Source::scales(raw, own, scales);
    KOTOBA_UNROLL(unroll)
    for (int run = 0; run < kRuns; ++run) {
      float w[kRunWeights];
      decode_run<Source>(raw, own, run, scales, w);
      KOTOBA_UNROLL(unroll)
      for (int j = 0; j < kRunWeights; j += kVector) {
        float four[kVector] = {w[j], w[j + 1], w[j + 2], w[j + 3]};
        const int64_t to = run_start<Block>(chunk, run) + j;
        if (wide) {
          p.put(at.row, to, four);
        } else {
          KOTOBA_UNROLL(unroll)
          for (int k = 0; k < kVector; ++k) {
            float one[1] = {four[k]};
            p.put(at.row, to + k, one);
          }
        }
      }
    }
  }
}

__global__ void check_ids_kernel(ReportState* report, const int32_t* ids, int64_t tokens, int64_t rows) {
  const int64_t i = global_thread();
  if (i < tokens && (ids[i] < 0 || ids[i] >= rows))
    atomicMin(&report->position, static_cast<unsigned long long>(i));
}

// x [rows, cols] as the tiles have it; numbers are counted as if rows followed each other.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    check_finite_kernel(ReportState* report, const float* x, int64_t stride, int64_t rows, int64_t cols,
                        RowTiles tiles) {
  const RowTiles::Place at = tiles.place<kCount>();
  if (at.row >= rows) return;
  float v[kVectorsAtOnce][kCount] = {};
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (at.col + i * at.step < cols) load_vector<F32Number>(v[i], x + at.row * stride + at.col + i * at.step);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i) KOTOBA_UNROLL(unroll)
  for (int j = 0; j < kCount; ++j)
    if ((__float_as_uint(v[i][j]) & 0x7f800000u) == 0x7f800000u)  // an infinity or a NaN
      atomicMin(&report->position, static_cast<unsigned long long>(at.row * cols + at.col + i * at.step + j));
}

// A block turns one tile; the extra column keeps a warp's reads of a tile's column on different banks.
template <typename Weight>
__global__ void transpose_kernel(float* out, const std::byte* x, int64_t x_stride, int64_t rows,
                                 int64_t cols) {
  KOTOBA_SHARED(tile, float[kTile][kTile + 1]);
  const int64_t across = (cols + kTile - 1) / kTile;
  const int64_t r0 = blockIdx.x / across * kTile, c0 = blockIdx.x % across * kTile;
  const auto* from = reinterpret_cast<const typename Weight::Stored*>(x);
  const int lane = static_cast<int>(threadIdx.x) % kTile;
  for (int i = static_cast<int>(threadIdx.x) / kTile; i < kTile; i += kThreads / kTile)
    if (r0 + i < rows && c0 + lane < cols)
      tile[i][lane] = Weight::decode(from[(r0 + i) * x_stride + c0 + lane]);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x) / kTile; i < kTile; i += kThreads / kTile)
    if (c0 + i < cols && r0 + lane < rows) out[(c0 + i) * rows + r0 + lane] = tile[lane][i];
}

template <typename Unit>
void copy_units(const Context& context, const TensorView& out, const TensorView& x, const CopyTokens& how) {
  if (x.cols() == 0 || how.tokens == 0) return;
  const auto units = [&](int64_t numbers) {
    return numbers * info(x.dtype).bytes / static_cast<int64_t>(sizeof(Unit));
  };
  const TokenCopy<Unit> p = {out.as<Unit>(),         x.as<const Unit>(), units(out.row_stride),
                             units(x.row_stride),    units(x.cols()),    out.rows() / how.batch,
                             x.rows() / how.batch,   how.out_offset,     how.x_offset,
                             how.batch * how.tokens, Divisor(how.tokens)};
  const RowTiles tiles(p.count, p.cols, 1);
  launch(context.stream, {"copy_tokens", tiles.blocks(), kThreads}, copy_tokens_kernel<Unit>, p, tiles);
}

void look_up(const Context& context, const Lookup& p, const TensorView& table, const TensorView& out) {
  const char* op = "embedding";
  const auto start = [&](auto kernel, int64_t numbers, const auto&... rest) {
    const RowTiles tiles(p.tokens, p.cols, numbers);
    launch(context.stream, {op, tiles.blocks(), kThreads}, kernel, p, tiles, rest...);
  };
  const bool wide = fits_vectors(out, kVector);
  if (!is_plain(table.dtype)) {
    require(has_aligned_blocks(table),
            "embedding: the table's blocks do not lie at a multiple of their alignment");
    const int64_t row_bytes = dtype_bytes(table.dtype, table.row_stride);
    return dispatch_block(table.dtype, op, [&]<typename Block>() {
      start(embedding_blocks_kernel<Block>, kChunkWeights, row_bytes, wide);
    });
  }
  if (wide && is_activation_dtype(table.dtype) && fits_vectors(table, kVector))
    return dispatch_activation(table.dtype, op, [&]<typename Weight>() {
      start(embedding_kernel<Weight, kVector>, kVector, table.row_stride);
    });
  dispatch_plain(table.dtype, op,
                 [&]<typename Weight>() { start(embedding_kernel<Weight, 1>, 1, table.row_stride); });
}

}  // namespace

// x: activations [batch * tokens, cols]; out: of the same dtype [batch * longer, cols]
void copy_tokens(const Context& context, TensorView out, TensorView x, const CopyTokens& how) {
  const int64_t sixteen = 16 / info(x.dtype).bytes;
  if (fits_vectors(x, sixteen) && fits_vectors(out, sixteen)) return copy_units<uint4>(context, out, x, how);
  if (x.dtype == DType::F32) return copy_units<float>(context, out, x, how);
  copy_units<uint16_t>(context, out, x, how);
}

Error unknown_token(int64_t id, int64_t position, int64_t rows) {
  return Error("ERR_TOKEN_ID", detail::join("embedding: id ", id, " at position ", position,
                                            " is outside the table of ", rows, " rows"));
}

// out: F32 [tokens, cols]; table: [rows, cols] of any weight dtype; ids: I32 [tokens]
void embedding(const Context& context, Report& report, TensorView out, TensorView table, TensorView ids,
               bool accumulate) {
  const int64_t tokens = ids.elements(), rows = table.rows(), cols = table.cols();
  ReportState* state =
      report.begin([rows](int64_t position, int32_t id) { return unknown_token(id, position, rows); });
  launch(context.stream, {"check_ids", ceil_div(tokens, kThreads), kThreads}, check_ids_kernel, state,
         ids.as<int32_t>(), tokens, rows);
  report.settle(ids.as<int32_t>(), tokens, tokens);

  look_up(context,
          {out.as<float>(), out.row_stride, table.data, ids.as<int32_t>(), tokens, rows, cols, accumulate},
          table, out);
}

// out: F32 [cols, rows]; x: [rows, cols] of any weight dtype
void transpose(const Context& context, TensorView out, TensorView x) {
  std::optional<Scratch> floats;
  if (!is_plain(x.dtype)) {
    TensorView decoded = x;
    decoded.dtype = DType::F32;
    decoded.row_stride = x.cols();
    floats.emplace(context.pool, dtype_bytes(DType::F32, x.elements()));
    decoded.data = floats->as<std::byte>();
    decode(context, decoded, x);
    x = decoded;
  }
  const int64_t tiles = ceil_div(x.rows(), kTile) * ceil_div(x.cols(), kTile);
  dispatch_plain(x.dtype, "transpose", [&]<typename Weight>() {
    launch(context.stream, {"transpose", tiles, kThreads}, transpose_kernel<Weight>, out.as<float>(), x.data,
           x.row_stride, x.rows(), x.cols());
  });
}

// x: F32 [rows, cols]
void require_finite(const Context& context, Report& report, TensorView x, std::string where) {
  const int64_t cols = x.cols();
  ReportState* state = report.begin([where = std::move(where), cols](int64_t position, int32_t bits) {
    return Error("ERR_NON_FINITE",
                 detail::join(where, ": ", float_of_bits(static_cast<uint32_t>(bits)), " at row ",
                              position / cols, ", column ", position % cols,
                              "; expected finite values. The weights are damaged, or a narrower precision "
                              "overflowed: try --precision fp32"));
  });
  const TensorView all = x.dense() ? flattened(x) : x;
  const bool wide = fits_vectors(all, kVector);
  const RowTiles tiles(all.rows(), all.cols(), wide ? kVector : 1);
  launch(context.stream, {"check_finite", tiles.blocks(), kThreads},
         wide ? check_finite_kernel<kVector> : check_finite_kernel<1>, state, all.as<const float>(),
         all.row_stride, all.rows(), all.cols(), tiles);
  report.settle(x.as<int32_t>(), cols, x.row_stride);
}

}  // namespace kotoba::cuda
