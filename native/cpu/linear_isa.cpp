// The FP32 matmul: out [m, n] = epilogue(x [m, k] · w [n, k]ᵀ), w in any stored dtype.
//
// First x is packed into panels [k][tokens in lanes], shared by all threads. A chunk is then up to kChunkRows
// weight rows and a block of at most kBlockTokens tokens: kDepth columns of the weights at a time are decoded
// for kGroupRows of them and multiplied with every panel of the block; the sums stay in L2. The order of
// every sum is fixed by k alone, so results depend neither on the number of threads nor on which one took a
// chunk.
#include "linear_problem.h"
#include "linear_tile.h"
#include "linear_transpose.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

// With kChunkRows this bounds what should stay in L2: the sums, and kDepth columns of x.
constexpr int64_t kBlockTokens = 256;
constexpr int64_t kPackedFloats = 6 << 20;  // of x packed at a time, if that is at least one block
constexpr int64_t kMaxPanels = kBlockTokens / kLanes;
constexpr int64_t kChunkRows = 192;
constexpr int64_t kGroupRows = kRowUnit;       // rows decoded at a time
constexpr int64_t kDepth = 512;                // columns decoded at a time: a multiple of every block size
constexpr int64_t kTileDepth = 256;            // columns summed up at a time: see multiply_tile
constexpr int64_t kWeightPitch = kDepth + 16;  // keeps a tile's rows apart in L1
constexpr int64_t kPackDepth = 512;            // columns of one panel that one chunk packs

static_assert(kChunkRows % kRowUnit == 0 && kChunkRows % kLanes == 0);

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Tokens [first, first + tokens) of x, packed. Blocks are equal but for the last.
struct PackedTokens {
  int64_t first, tokens, blocks, block_tokens;
  float* data;  // block b at data + b * block_tokens * k
};

// A block of them, split into panels of 1 … kMaxVectors vectors, as even as can be.
struct TokenBlock {
  int64_t first, tokens, panels;
  int64_t start[kMaxPanels + 1];  // in vectors
  float* packed;                  // panel p is [k, width(p)] at packed + start[p] * kLanes * k

  int vectors(int64_t p) const { return static_cast<int>(start[p + 1] - start[p]); }
  int64_t width(int64_t p) const { return vectors(p) * kLanes; }
};

TokenBlock token_block(const PackedTokens& x, int64_t index, int64_t k) {
  const int64_t skipped = index * x.block_tokens;
  TokenBlock block;
  block.first = x.first + skipped;
  block.tokens = smaller(x.block_tokens, x.tokens - skipped);
  block.packed = x.data + skipped * k;
  const int64_t vectors = ceil_div(block.tokens, kLanes);
  block.panels = ceil_div(vectors, kMaxVectors);
  for (int64_t p = 0; p <= block.panels; ++p) block.start[p] = p * vectors / block.panels;
  return block;
}

// Packs columns [col, col + count) of kLanes tokens from `token` of the block on; absent tokens are zeros.
void pack_vector(const LinearProblem& p, const TokenBlock& block, int64_t token, int64_t col, int64_t count,
                 float* dst, int64_t dst_stride) {
  const float* x = p.x + (block.first + token) * p.x_stride + col;
  const int64_t present = smaller(kLanes, block.tokens - token);
  for (int64_t k = 0; k < count; k += kLanes) {
    const int64_t n = smaller(kLanes, count - k);
    VF lines[kLanes];
    if (present == kLanes && n == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) lines[i] = v_load(x + i * p.x_stride + k);
    } else {
      for (int i = 0; i < kLanes; ++i)
        lines[i] = i < present ? v_load_partial(x + i * p.x_stride + k, n) : v_zero();
    }
    v_transpose(lines);
    for (int64_t i = 0; i < n; ++i) v_store(dst + (k + i) * dst_stride, lines[i]);
  }
}

void pack_tokens(const Context& context, const LinearProblem& p, const PackedTokens& x) {
  const int64_t pieces = ceil_div(p.k, kPackDepth), panels = token_block(x, 0, p.k).panels;
  context.pool->run(context.threads, x.blocks * panels * pieces, [&](int64_t chunk) {
    if (is_cancelled(context)) return;
    const TokenBlock block = token_block(x, chunk / (panels * pieces), p.k);
    const int64_t panel = chunk / pieces % panels, col = chunk % pieces * kPackDepth;
    if (panel >= block.panels) return;  // of the last block
    float* dst = block.packed + block.start[panel] * kLanes * p.k + col * block.width(panel);
    for (int64_t v = 0; v < block.vectors(panel); ++v)
      pack_vector(p, block, (block.start[panel] + v) * kLanes, col, smaller(kPackDepth, p.k - col),
                  dst + v * kLanes, block.width(panel));
  });
}

// A thread's memory for one chunk.
struct Workspace {
  float weights[kGroupRows * kWeightPitch];
  // Panel p is [kChunkRows, width(p)] at start[p] * kLanes * kChunkRows.
  float sums[kChunkRows * kBlockTokens];
  float lines[kLanes * kChunkRows];  // finished sums, a line per token
};

// A group of rows at columns [col, col + depth), as floats.
struct WeightTile {
  const float* data;
  int64_t pitch;
  int64_t rows, depth;
  bool first;  // col == 0
};

template <int T>
void multiply_panel(float* sums, const WeightTile& w, const float* tokens, Ahead& ahead) {
  for (int64_t k = 0; k < w.depth; k += kTileDepth)
    for (int64_t r = 0; r < w.rows; r += kTileRows[T])
      multiply_tile<T>(sums + r * T * kLanes, w.data + r * w.pitch + k, w.pitch, tokens + k * T * kLanes,
                       smaller(kTileDepth, w.depth - k), w.first && k == 0, ahead);
}

constexpr void (*kMultiplyPanel[])(float*, const WeightTile&, const float*, Ahead&) = {
    nullptr,           multiply_panel<1>, multiply_panel<2>, multiply_panel<3>,
#if defined(__AVX512F__)
    multiply_panel<4>,
#endif
};

// Turns the sums of kLanes tokens, [rows, width], round and hands them to the epilogue.
void finish_vector(const LinearProblem& p, const float* sums, int64_t width, float* lines, int64_t token,
                   int64_t tokens, int64_t row, int64_t rows) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    VF block[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) block[i] = v_load(sums + (r + i) * width);
    v_transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v_store(lines + i * kChunkRows + r, block[i]);
  }
  for (int64_t t = 0; t < tokens; ++t) finish_row(p.epilogue, token + t, row, rows, lines + t * kChunkRows);
}

// F32 rows are used where they are, others decoded; the rows that fill up the last tile are zeros.
WeightTile load_group(const LinearProblem& p, Workspace& work, int64_t row, int64_t rows, int64_t col,
                      int64_t depth) {
  WeightTile tile{work.weights, kWeightPitch, rows, depth, col == 0};
  if (p.w_dtype == DType::F32 && rows == kGroupRows) {
    tile.data = reinterpret_cast<const float*>(p.weights(row, col));
    tile.pitch = p.w_stride / 4;
    return tile;
  }
  for (int64_t r = 0; r < rows; ++r)
    p.decode(p.weights(row + r, col), work.weights + r * kWeightPitch, depth);
  for (int64_t r = rows; r < kGroupRows; ++r)
    memset(work.weights + r * kWeightPitch, 0, depth * sizeof(float));
  return tile;
}

// The stored weights of the group from `row` and `col` on, to be asked for while another group is multiplied.
Ahead ahead_of_group(const LinearProblem& p, const TokenBlock& block, int64_t row, int64_t rows,
                     int64_t col) {
  Ahead ahead;
  if (col >= p.k) return ahead;
  const int64_t depth = smaller(kDepth, p.k - col);
  int64_t steps = 0;
  for (int64_t i = 0; i < block.panels; ++i)
    steps += kGroupRows / kTileRows[block.vectors(i)] * ceil_div(depth, kAheadColumns);
  ahead.piece = p.weights(row, col);
  ahead.stride = p.w_stride;
  ahead.piece_lines = ceil_div(dtype_bytes(p.w_dtype, depth), Ahead::kLine);
  ahead.left = rows * ahead.piece_lines;
  ahead.batch = ceil_div(ahead.left, steps);
  return ahead;
}

void multiply_chunk(const LinearProblem& p, const TokenBlock& block, Workspace& work, int64_t row,
                    int64_t rows) {
  for (int64_t col = 0; col < p.k; col += kDepth)
    for (int64_t group = 0; group < rows; group += kGroupRows) {
      const bool wrap = group + kGroupRows >= rows;
      const int64_t next = wrap ? 0 : group + kGroupRows;
      Ahead ahead =
          ahead_of_group(p, block, row + next, smaller(kGroupRows, rows - next), wrap ? col + kDepth : col);
      const WeightTile tile = load_group(p, work, row + group, smaller(kGroupRows, rows - group), col,
                                         smaller(kDepth, p.k - col));
      for (int64_t i = 0; i < block.panels; ++i) {
        const int64_t start = block.start[i] * kLanes, width = block.width(i);
        kMultiplyPanel[block.vectors(i)](work.sums + start * kChunkRows + group * width, tile,
                                         block.packed + start * p.k + col * width, ahead);
      }
    }
  for (int64_t i = 0; i < block.panels; ++i)
    for (int64_t v = block.start[i]; v < block.start[i + 1]; ++v) {
      const float* sums = work.sums + block.start[i] * kLanes * kChunkRows + (v - block.start[i]) * kLanes;
      const int64_t token = v * kLanes;
      finish_vector(p, sums, block.width(i), work.lines, block.first + token,
                    smaller(kLanes, block.tokens - token), row, rows);
    }
}

// Rows of a chunk: enough chunks to keep the threads level, enough rows to make the trip of x through the
// caches worth it.
int64_t chunk_rows(int64_t n, int threads) {
  if (threads == 1) return kChunkRows;
  const int64_t rows = ceil_div(ceil_div(n, int64_t{8} * threads), kRowUnit) * kRowUnit;
  return smaller(rows, kChunkRows);
}

// The size of equal blocks, in whole vectors, and how many of them are packed at a time.
PackedTokens plan_tokens(const LinearProblem& p) {
  PackedTokens x{};
  x.block_tokens = ceil_div(ceil_div(p.m, ceil_div(p.m, kBlockTokens)), kLanes) * kLanes;
  const int64_t fitting = kPackedFloats / (x.block_tokens * p.k);
  x.blocks = smaller(ceil_div(p.m, x.block_tokens), fitting < 1 ? 1 : fitting);
  return x;
}

void linear_many_tokens(const Context& context, const LinearProblem& p, PackedTokens x) {
  const int64_t rows = chunk_rows(p.n, context.threads), row_chunks = ceil_div(p.n, rows);
  const int64_t packed_at_once = x.blocks * x.block_tokens;
  for (x.first = 0; x.first < p.m; x.first += packed_at_once) {
    x.tokens = smaller(packed_at_once, p.m - x.first);
    x.blocks = ceil_div(x.tokens, x.block_tokens);
    pack_tokens(context, p, x);
    context.pool->run(context.threads, row_chunks * x.blocks, [&](int64_t chunk) {
      if (is_cancelled(context)) return;
      auto* work = static_cast<Workspace*>(scratch(Scratch::kThread, sizeof(Workspace)));
      const int64_t row = chunk % row_chunks * rows;
      multiply_chunk(p, token_block(x, chunk / row_chunks, p.k), *work, row, smaller(rows, p.n - row));
    });
  }
}

}  // namespace

void linear_fp32(const Context& context, TensorView out, TensorView x, TensorView w,
                 const Epilogue& epilogue) {
  LinearProblem p{};
  p.m = x.rows();
  p.n = w.shape[0];
  p.k = x.cols();
  if (p.m == 0 || p.n == 0) return;
  p.x = reinterpret_cast<const float*>(x.data);
  p.x_stride = x.row_stride;
  p.w = w.data;
  p.w_stride = dtype_bytes(w.dtype, w.row_stride);
  p.w_dtype = w.dtype;
  p.decode = decode_fn(w.dtype);
  const bool few = p.m <= kFewTokens;
  PackedTokens packed = plan_tokens(p);
  const int64_t packed_floats = few ? 0 : packed.blocks * packed.block_tokens * p.k;
  packed.data = static_cast<float*>(scratch(
      Scratch::kOp, (packed_floats + row_epilogue_floats(p.n)) * static_cast<int64_t>(sizeof(float))));
  p.epilogue = make_row_epilogue(out, epilogue, p.n, packed.data + packed_floats);
  if (few)
    linear_few_tokens(context, p);
  else
    linear_many_tokens(context, p, packed);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
