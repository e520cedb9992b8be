// The FP32 matmul: out [m, n] = epilogue(x [m, k] · w [n, k]ᵀ), w in any stored dtype; conv2d runs on it too.
//
// First x is packed into panels [k][tokens in lanes], for all threads or (few rows) by each for itself. A
// chunk is then up to kChunkRows weight rows and a block of at most kBlockTokens tokens: p.depth columns of
// the weights at a time are decoded for kGroupRows of them and multiplied with every panel of the block; the
// sums stay in L2. The order of every sum is fixed by k alone, so results depend neither on the number of
// threads nor on which one took a chunk.
#include "linear_block.h"
#include "linear_pack.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

// With kBlockTokens this bounds what should stay in L2: the sums, and p.depth columns of x.
constexpr int64_t kChunkRows = 192;
constexpr int64_t kPackedFloats = 6 << 20;         // of x packed at a time, if that is at least one block
constexpr int64_t kGroupRows = kRowUnit;           // rows decoded at a time
constexpr int64_t kWeightPitch = kPackDepth + 16;  // keeps a tile's rows apart in L1

// Where chunks pack for themselves: with as many sums as above, and half the columns of x.
constexpr int64_t kOwnTokens = kBlockTokens / 2;
constexpr int64_t kOwnRows = 2 * kChunkRows;
constexpr int64_t kOwnBlocks = 4;  // to a thread at least, to keep threads level

static_assert(kChunkRows % kRowUnit == 0 && kChunkRows % kLanes == 0);

// Tokens [first, first + tokens) of x, packed. Blocks are equal but for the last.
struct PackedTokens {
  int64_t first, tokens, blocks, block_tokens;
  float* data;  // block b at data + b * block_tokens * k
};

TokenBlock token_block(const PackedTokens& x, int64_t index, int64_t k) {
  const int64_t skipped = index * x.block_tokens;
  return make_token_block(x.first + skipped, smaller(x.block_tokens, x.tokens - skipped), k,
                          x.data + skipped * k);
}

void pack_tokens(const Context& context, const LinearProblem& p, const TokenSource& source,
                 const PackedTokens& x) {
  const int64_t pieces = ceil_div(p.k, p.depth), panels = token_block(x, 0, p.k).panels;
  context.pool->run(context.threads, x.blocks * panels * pieces, [&](int64_t chunk) {
    if (is_cancelled(context)) return;
    const TokenBlock block = token_block(x, chunk / (panels * pieces), p.k);
    const int64_t panel = chunk / pieces % panels, col = chunk % pieces * p.depth;
    if (panel >= block.panels) return;  // of the last block
    pack_panel(source, block, panel, col, smaller(p.depth, p.k - col));
  });
}

// A thread's memory for one chunk.
struct Workspace {
  float weights[kGroupRows * kWeightPitch];
  float sums[kChunkRows * kBlockTokens];
  float lines[kLanes * kOwnRows];  // finished sums, a line per token
  float packed[kOwnTokens * kPackDepth];
};

// The weight rows that meet a block of tokens. The sums of panel p are [room, width(p)] at start[p] * kLanes
// * room.
struct RowRange {
  int64_t row, rows, room;
};

// A group of rows at columns [col, col + depth), as floats.
struct WeightTile {
  const float* data;
  int64_t pitch;
  int64_t rows, depth;
  int64_t tile_depth;  // columns summed up at a time: see multiply_tile
  bool first;          // col == 0
};

template <int T>
void multiply_panel(float* sums, const WeightTile& w, const float* tokens, Ahead& ahead) {
  for (int64_t k = 0; k < w.depth; k += w.tile_depth)
    for (int64_t r = 0; r < w.rows; r += kTileRows[T])
      multiply_tile<T>(sums + r * T * kLanes, w.data + r * w.pitch + k, w.pitch, tokens + k * T * kLanes,
                       smaller(w.tile_depth, w.depth - k), w.first && k == 0, ahead);
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
    for (int i = 0; i < kLanes; ++i) v_store(lines + i * kOwnRows + r, block[i]);
  }
  for (int64_t t = 0; t < tokens; ++t) finish_row(p.epilogue, token + t, row, rows, lines + t * kOwnRows);
}

// F32 rows are used where they are, others decoded; the rows that fill up the last tile are zeros.
WeightTile load_group(const LinearProblem& p, Workspace& work, int64_t row, int64_t rows, int64_t col,
                      int64_t depth) {
  WeightTile tile{work.weights, kWeightPitch, rows, depth, p.depth / 2, col == 0};
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
  const int64_t depth = smaller(p.depth, p.k - col);
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

// Adds columns [col, col + p.depth) to the sums of all rows and panels.
void multiply_columns(const LinearProblem& p, const TokenBlock& block, Workspace& work, const RowRange& range,
                      int64_t col) {
  const int64_t row = range.row, rows = range.rows;
  for (int64_t group = 0; group < rows; group += kGroupRows) {
    const bool wrap = group + kGroupRows >= rows;
    const int64_t next = wrap ? 0 : group + kGroupRows;
    Ahead ahead =
        ahead_of_group(p, block, row + next, smaller(kGroupRows, rows - next), wrap ? col + p.depth : col);
    const WeightTile tile =
        load_group(p, work, row + group, smaller(kGroupRows, rows - group), col, smaller(p.depth, p.k - col));
    for (int64_t i = 0; i < block.panels; ++i) {
      float* sums = work.sums + block.start[i] * kLanes * range.room + group * block.width(i);
      kMultiplyPanel[block.vectors(i)](sums, tile, block.at(i, col), ahead);
    }
  }
}

void finish_chunk(const LinearProblem& p, const TokenBlock& block, Workspace& work, const RowRange& range) {
  for (int64_t i = 0; i < block.panels; ++i)
    for (int64_t v = block.start[i]; v < block.start[i + 1]; ++v) {
      const float* sums = work.sums + block.start[i] * kLanes * range.room + (v - block.start[i]) * kLanes;
      const int64_t token = v * kLanes;
      finish_vector(p, sums, block.width(i), work.lines, block.first + token,
                    smaller(kLanes, block.tokens - token), range.row, range.rows);
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

// All tokens are packed before they are multiplied, for row chunks on several threads to share.
void multiply_shared(const Context& context, const LinearProblem& p, const TokenSource& source,
                     PackedTokens x) {
  const int64_t rows = chunk_rows(p.n, context.threads), row_chunks = ceil_div(p.n, rows);
  const int64_t packed_at_once = x.blocks * x.block_tokens;
  for (x.first = 0; x.first < p.m && !is_cancelled(context); x.first += packed_at_once) {
    x.tokens = smaller(packed_at_once, p.m - x.first);
    x.blocks = ceil_div(x.tokens, x.block_tokens);
    pack_tokens(context, p, source, x);
    context.pool->run(context.threads, row_chunks * x.blocks, [&](int64_t chunk) {
      if (is_cancelled(context)) return;
      auto* work = static_cast<Workspace*>(scratch(Scratch::kThread, sizeof(Workspace)));
      const TokenBlock block = token_block(x, chunk / row_chunks, p.k);
      const int64_t row = chunk % row_chunks * rows;
      const RowRange range{row, smaller(rows, p.n - row), kChunkRows};
      for (int64_t col = 0; col < p.k; col += p.depth) multiply_columns(p, block, *work, range, col);
      finish_chunk(p, block, *work, range);
    });
  }
}

// Few rows: every chunk takes them all and packs p.depth columns of its own tokens at a time, which never
// leave its L2. Packed for all, they would travel to L3 and back: a fifth of the time at n = 128 on Zen 5.
void multiply_own(const Context& context, const LinearProblem& p, const TokenSource& source) {
  context.pool->run(context.threads, ceil_div(p.m, kOwnTokens), [&](int64_t chunk) {
    if (is_cancelled(context)) return;
    auto* work = static_cast<Workspace*>(scratch(Scratch::kThread, sizeof(Workspace)));
    const int64_t first = chunk * kOwnTokens;
    TokenBlock block = make_token_block(first, smaller(kOwnTokens, p.m - first), p.depth, work->packed);
    const RowRange range{0, p.n, kOwnRows};
    for (; block.col < p.k; block.col += p.depth) {
      for (int64_t i = 0; i < block.panels; ++i)
        pack_panel(source, block, i, block.col, smaller(p.depth, p.k - block.col));
      multiply_columns(p, block, *work, range, block.col);
    }
    finish_chunk(p, block, *work, range);
  });
}

class Rows final : public TokenSource {
 public:
  explicit Rows(const TensorView& x) : x_(reinterpret_cast<const float*>(x.data)), stride_(x.row_stride) {}

  void pack(int64_t token, int64_t present, int64_t col, int64_t count, float* dst,
            int64_t dst_stride) const override {
    const float* lines[kLanes];
    for (int i = 0; i < kLanes; ++i) lines[i] = i < present ? x_ + (token + i) * stride_ + col : kZeroLine;
    pack_lines(lines, count, dst, dst_stride);
  }

 private:
  const float* x_;
  int64_t stride_;
};

}  // namespace

void linear_many_tokens(const Context& context, LinearProblem p, const TokenSource& source,
                        const TensorView& out, const Epilogue& epilogue) {
  const bool own = p.n <= kOwnRows && p.m >= kOwnBlocks * context.threads * kOwnTokens;
  PackedTokens x = plan_tokens(p);
  const int64_t packed_floats = own ? 0 : x.blocks * x.block_tokens * p.k;
  x.data = static_cast<float*>(scratch(
      Scratch::kOp, (packed_floats + row_epilogue_floats(p.n)) * static_cast<int64_t>(sizeof(float))));
  p.epilogue = make_row_epilogue(out, epilogue, p.n, x.data + packed_floats);
  if (own)
    multiply_own(context, p, source);
  else
    multiply_shared(context, p, source, x);
}

void linear_fp32(const Context& context, TensorView out, TensorView x, TensorView w,
                 const Epilogue& epilogue) {
  LinearProblem p = make_linear_problem(x.rows(), w);
  if (p.m == 0 || p.n == 0) return;
  if (p.m > kFewTokens) return linear_many_tokens(context, p, Rows(x), out, epilogue);
  p.epilogue =
      make_row_epilogue(out, epilogue, p.n,
                        static_cast<float*>(scratch(
                            Scratch::kOp, row_epilogue_floats(p.n) * static_cast<int64_t>(sizeof(float)))));
  linear_few_tokens(context, p, reinterpret_cast<const float*>(x.data), x.row_stride);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
