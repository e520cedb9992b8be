// Ops that only move numbers: copy_tokens, embedding, transpose, and the check for finite values.
#include <optional>

#include "launch.h"
#include "ops.h"
#include "weight.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32;

__device__ __forceinline__ int64_t global_thread() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

struct TokenCopy {
  float* out;
  const float* x;
  int64_t out_stride, x_stride, cols;
  int64_t tokens, longer, x_tokens;  // to a sequence: copied, of out, of x
  int64_t out_offset, x_offset, count;
};

__global__ void copy_tokens_kernel(TokenCopy p) {
  const int64_t i = global_thread();
  if (i >= p.count) return;
  const int64_t row = i / p.cols, c = i % p.cols, b = row / p.tokens, t = row % p.tokens;
  p.out[(b * p.longer + p.out_offset + t) * p.out_stride + c] =
      p.x[(b * p.x_tokens + p.x_offset + t) * p.x_stride + c];
}

struct Lookup {
  float* out;
  int64_t out_stride;
  const std::byte* table;
  const int32_t* ids;
  int64_t tokens, rows, cols;
  bool accumulate;
};

__device__ __forceinline__ void put(const Lookup& p, int64_t token, int64_t c, float v) {
  float* at = p.out + token * p.out_stride + c;
  *at = p.accumulate ? *at + v : v;
}

// A thread to a number. Ids outside of the table are left to check_ids_kernel.
template <typename Weight>
__global__ void embedding_kernel(Lookup p, int64_t table_stride) {
  const int64_t i = global_thread();
  if (i >= p.tokens * p.cols) return;
  const int64_t token = i / p.cols, c = i % p.cols, id = p.ids[token];
  if (id < 0 || id >= p.rows) return;
  const auto* table = reinterpret_cast<const typename Weight::Stored*>(p.table);
  put(p, token, c, Weight::decode(table[id * table_stride + c]));
}

// A thread to a block of weights. table_stride: blocks.
template <typename Block>
__global__ void embedding_blocks_kernel(Lookup p, int64_t table_stride) {
  const int64_t blocks = p.cols / Block::kWeights, i = global_thread();
  if (i >= p.tokens * blocks) return;
  const int64_t token = i / blocks, b = i % blocks, id = p.ids[token];
  if (id < 0 || id >= p.rows) return;
  float w[Block::kWeights];
  decode_block(reinterpret_cast<const Block*>(p.table)[id * table_stride + b], w);
  KOTOBA_UNROLL(unroll 4)
  for (int j = 0; j < Block::kWeights; ++j) put(p, token, b * Block::kWeights + j, w[j]);
}

__global__ void check_ids_kernel(ReportState* report, const int32_t* ids, int64_t tokens, int64_t rows) {
  const int64_t i = global_thread();
  if (i < tokens && (ids[i] < 0 || ids[i] >= rows))
    atomicMin(&report->position, static_cast<unsigned long long>(i));
}

__global__ void check_finite_kernel(ReportState* report, const float* x, int64_t stride, int64_t count,
                                    int64_t cols) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const float v = x[i / cols * stride + i % cols];
  if ((__float_as_uint(v) & 0x7f800000u) == 0x7f800000u)  // an infinity or a NaN
    atomicMin(&report->position, static_cast<unsigned long long>(i));
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

}  // namespace

// x: F32 [batch * tokens, cols]; out: F32 [batch * longer, cols]
void copy_tokens(const Context& context, TensorView out, TensorView x, const CopyTokens& how) {
  const TokenCopy p = {out.as<float>(),
                       x.as<float>(),
                       out.row_stride,
                       x.row_stride,
                       x.cols(),
                       how.tokens,
                       out.rows() / how.batch,
                       x.rows() / how.batch,
                       how.out_offset,
                       how.x_offset,
                       how.batch * how.tokens * x.cols()};
  launch(context.stream, {"copy_tokens", ceil_div(p.count, kThreads), kThreads}, copy_tokens_kernel, p);
}

// out: F32 [tokens, cols]; table: [rows, cols] of any weight dtype; ids: I32 [tokens]
void embedding(const Context& context, Report& report, TensorView out, TensorView table, TensorView ids,
               bool accumulate) {
  const int64_t tokens = ids.elements(), rows = table.rows(), cols = table.cols();
  ReportState* state = report.begin([rows](int64_t position, int32_t id) {
    return Error("ERR_TOKEN_ID", detail::join("embedding: id ", id, " at position ", position,
                                              " is outside the table of ", rows, " rows"));
  });
  launch(context.stream, {"check_ids", ceil_div(tokens, kThreads), kThreads}, check_ids_kernel, state,
         ids.as<int32_t>(), tokens, rows);
  report.settle(ids.as<int32_t>(), tokens, tokens);

  const Lookup p = {out.as<float>(), out.row_stride, table.data, ids.as<int32_t>(),
                    tokens,          rows,           cols,       accumulate};
  if (is_plain(table.dtype))
    return dispatch_plain(table.dtype, "embedding", [&]<typename Weight>() {
      launch(context.stream, {"embedding", ceil_div(tokens * cols, kThreads), kThreads},
             embedding_kernel<Weight>, p, table.row_stride);
    });
  dispatch_block(table.dtype, "embedding", [&]<typename Block>() {
    launch(context.stream,
           {"embedding_blocks", ceil_div(tokens * cols / Block::kWeights, kThreads), kThreads},
           embedding_blocks_kernel<Block>, p, table.row_stride / Block::kWeights);
  });
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
  const int64_t cols = x.cols(), count = x.elements();
  ReportState* state = report.begin([where = std::move(where), cols](int64_t position, int32_t bits) {
    return Error("ERR_NON_FINITE",
                 detail::join(where, ": ", float_of_bits(static_cast<uint32_t>(bits)), " at row ",
                              position / cols, ", column ", position % cols,
                              "; expected finite values. The weights are damaged, or a narrower precision "
                              "overflowed: try --precision fp32"));
  });
  launch(context.stream, {"check_finite", ceil_div(count, kThreads), kThreads}, check_finite_kernel, state,
         x.as<float>(), x.row_stride, count, cols);
  report.settle(x.as<int32_t>(), cols, x.row_stride);
}

}  // namespace kotoba::cuda
