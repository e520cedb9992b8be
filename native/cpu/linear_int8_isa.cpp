// linear in int8: x is quantised to int8 per 32 columns, w keeps the codes of its file (float weights are
// quantised likewise), dot products of 32 columns are exact integers and their sum is FP32.
//
//   out[m, n] = epilogue(sum over blocks b of 32 columns of
//                        w_scale[n, b] * x_scale[m, b] * dot(w_codes, x_codes) + w_low[n, b] * x_sum[m, b])
//
// A task is a few panels of weight rows times a slab of tokens. For every 32 columns it keeps the codes of a
// panel in registers and passes a group of tokens by them, whose FP32 sums lie in the first-level cache. The
// order of additions does not depend on the number of threads or tokens.
#include "epilogue.h"
#include "linear_int8_formats.h"
#include "linear_int8_multiply.h"
#include "thread_pool.h"
#if defined(__AMX_INT8__) || defined(KOTOBA_EMULATE_AMX)
#include "linear_int8_amx.h"
#endif

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

constexpr int64_t kSlab = 256;          // tokens that share an unpacked panel
constexpr int64_t kTokenGroup = 64;     // tokens whose sums stay in the first-level cache
constexpr int kMaxPanels = 64 / kRows;  // to a task: each column of x that is loaded serves all of them

#if defined(__AMX_INT8__) || defined(KOTOBA_EMULATE_AMX)
constexpr int64_t kTokenUnit = kTileTokens;
template <int kBits, int kScales, bool kHasLow>
constexpr MultiplyBlock kMultiply = multiply_block_tiles<kBits, kScales, kHasLow>;
void begin_multiply(int scales) { configure_tiles(scales); }
void end_multiply() { KOTOBA_TILE_RELEASE(); }
#else
constexpr int64_t kTokenUnit = 1;
template <int kBits, int kScales, bool kHasLow>
constexpr MultiplyBlock kMultiply = multiply_block<kBits, kScales, kHasLow>;
void begin_multiply(int) {}
void end_multiply() {}
#endif

// ---- formats

struct Format {
  DType dtype;  // as stored
  UnpackRows unpack;
  int scales;  // to each 32 columns
  MultiplyBlock multiply;
  SumRule rule;
};

template <typename Block, int kBits, int kScales = 1>
constexpr Format with_offset(DType dtype, int offset) {
  return {dtype,
          unpack_rows<Block, kScales>,
          kScales,
          kMultiply<kBits, kScales, false>,
          {offset, kScales == 2, false}};
}

template <typename Block, int kBits, int kScales = 1>
constexpr Format with_low(DType dtype) {
  return {
      dtype, unpack_rows<Block, kScales>, kScales, kMultiply<kBits, kScales, true>, {0, kScales == 2, true}};
}

// The number is the bits of a code, the next the scales to 32 columns if not one.
constexpr Format kFormats[] = {
    with_offset<BlockQ4_0, 4>(DType::Q4_0, 8),
    with_low<BlockQ4_1, 4>(DType::Q4_1),
    with_offset<BlockQ5_0, 5>(DType::Q5_0, 16),
    with_low<BlockQ5_1, 5>(DType::Q5_1),
    with_offset<BlockQ8_0, 8>(DType::Q8_0, kSignedOffset),
    with_offset<BlockQ8_1, 8>(DType::Q8_1, kSignedOffset),
    with_low<BlockQ4_K, 4>(DType::Q4_K),
    with_low<BlockQ5_K, 5>(DType::Q5_K),
    with_offset<BlockQ6_K, 6, 2>(DType::Q6_K, 32),
    with_offset<BlockQ3_K, 4, 2>(DType::Q3_K, 4),
    with_low<BlockQ2_K, 4, 2>(DType::Q2_K),
    with_offset<BlockIQ4_NL, 8>(DType::IQ4_NL, kIq4Offset),
    with_offset<BlockIQ4_XS, 8>(DType::IQ4_XS, kIq4Offset),
    with_offset<BlockMXFP4, 5>(DType::MXFP4, kE2m1Offset),
    with_offset<BlockNVFP4, 5, 2>(DType::NVFP4, kE2m1Offset),
};

Format format_of(DType dtype) {
  for (const Format& format : kFormats)
    if (format.dtype == dtype) return format;
  return {dtype, unpack_rows_as_float, 1, kMultiply<8, 1, false>, {kSignedOffset, false, false}};
}

// ---- the product

struct Product {
  const Context& context;
  Format format;
  TensorView x, w;
  int64_t m, n, k;
  RowEpilogue epilogue;
  int64_t group;                 // tokens that are multiplied together
  ActivationBlock* activations;  // of the slab: [group][block][token of the group]

  int64_t blocks() const { return (k + kBlock - 1) / kBlock; }
  ActivationBlock* at(int64_t token, int64_t block) const {
    return activations + (token / group * blocks() + block) * group + token % group;
  }
  bool cancelled() const { return context.cancelled != nullptr && *context.cancelled; }
};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct TaskScratch {
  Panel panels[kMaxPanels];
  alignas(64) float sums[kMaxPanels * kSlab * kRows];  // [panel][token of the slab][row]
};

// Brings the stored weights of a task's next chunk into the cache, a few lines at a time between products.
struct Prefetch {
  const std::byte* data;
  int64_t rows, row_bytes, pitch;
  int64_t offset = 0;

  void lines(int64_t count) {
    for (; count > 0 && rows > 0; --count) {
      __builtin_prefetch(data + offset, 0, 2);
      offset += 64;
      if (offset < row_bytes) continue;
      offset = 0;
      data += pitch;
      --rows;
    }
  }
};

// Columns [col, col + kChunk) of `rows` rows, or after the last column the same rows of another task.
Prefetch prefetch_of(const Product& p, int64_t first, int64_t rows, int64_t col) {
  if (col >= p.k) {
    first += rows * p.context.threads;  // what this thread will probably be dealt
    col = 0;
  }
  const DType dtype = p.w.dtype;
  const int64_t pitch = dtype_bytes(dtype, p.w.row_stride);
  return {p.w.data + first * pitch + dtype_bytes(dtype, col), smaller(rows, p.n - first),
          dtype_bytes(dtype, smaller(kChunk, p.k - col)), pitch};
}

void quantise_tokens(const Product& p, int64_t first, int64_t tokens) {
  constexpr int64_t kTokens = 8;
  p.context.pool->run(p.context.threads, ceil_div(tokens, kTokens), [&](int64_t chunk) {
    for (int64_t t = chunk * kTokens; t < smaller(tokens, (chunk + 1) * kTokens); ++t)
      quantise_row(p.x.as<float>() + (first + t) * p.x.row_stride, p.k, p.at(t, 0), p.group, p.format.rule);
  });
}

// Columns [col, col + cols) of the kRows rows from `first` on. Rows past the end of w repeat the last one.
void pack_panel(const Product& p, int64_t first, int64_t col, int64_t cols, Panel* panel) {
  const DType dtype = p.w.dtype;
  const int64_t pitch = dtype_bytes(dtype, p.w.row_stride);
  for (int v = 0; v < kVectors; ++v) {
    Rows rows;
    for (int r = 0; r < kLanes; ++r)
      rows.at[r] = p.w.data + smaller(first + v * kLanes + r, p.n - 1) * pitch + dtype_bytes(dtype, col);
    const int scales = v * p.format.scales * kLanes;
    p.format.unpack(dtype, rows, cols,
                    {panel->codes + v * kSteps * kStepBytes, panel->scales + scales, panel->lows + scales});
  }
}

// One chunk of columns of the task's panels times all tokens of the slab.
void multiply_chunk(const Product& p, TaskScratch* scratch, int panels, int64_t first_block, int64_t blocks,
                    int64_t tokens, Prefetch next) {
  begin_multiply(p.format.scales);
  const int64_t steps = blocks * ceil_div(tokens, p.group);
  const int64_t lines = ceil_div(next.rows * ceil_div(next.row_bytes, 64), steps);
  for (int64_t t = 0; t < tokens; t += p.group) {
    const int64_t group = smaller(p.group, tokens - t);
    for (int64_t b = 0; b < blocks; ++b) {
      next.lines(lines);
      const ActivationBlock* x = p.at(t, first_block + b);
      for (int i = 0; i < panels; ++i)
        p.format.multiply(scratch->panels[i], b, x, group, scratch->sums + (i * kSlab + t) * kRows);
    }
  }
  end_multiply();
}

// Output columns [first, first + panels * kRows) for the slab of `tokens` tokens from first_token on.
void multiply_panels(const Product& p, int64_t first, int panels, int64_t first_token, int64_t tokens) {
  auto* task = static_cast<TaskScratch*>(scratch(Scratch::kThread, sizeof(TaskScratch)));
  for (int i = 0; i < panels; ++i) memset(task->sums + i * kSlab * kRows, 0, tokens * kRows * sizeof(float));
  for (int64_t col = 0; col < p.k; col += kChunk) {
    if (p.cancelled()) return;
    const int64_t cols = smaller(kChunk, p.k - col);
    for (int i = 0; i < panels; ++i) pack_panel(p, first + i * kRows, col, cols, &task->panels[i]);
    multiply_chunk(p, task, panels, col / kBlock, ceil_div(cols, kBlock), tokens,
                   prefetch_of(p, first, panels * kRows, col + kChunk));
  }
  for (int64_t t = 0; t < tokens; ++t)
    for (int i = 0; i < panels; ++i) {
      const int64_t col = first + i * kRows;
      finish_row(p.epilogue, first_token + t, col, smaller(kRows, p.n - col),
                 task->sums + (i * kSlab + t) * kRows);
    }
}

void multiply_slab(const Product& p, int64_t first_token, int64_t tokens) {
  quantise_tokens(p, first_token, tokens);
  const int64_t panels = ceil_div(p.n, kRows);
  // At least four tasks to a thread, so that a slow core does not hold up the others.
  const int64_t wanted = panels / (int64_t{4} * p.context.threads);
  const int64_t each = wanted < 1 ? 1 : smaller(wanted, kMaxPanels);
  p.context.pool->run(p.context.threads, ceil_div(panels, each), [&](int64_t task) {
    const int64_t first = task * each;
    multiply_panels(p, first * kRows, static_cast<int>(smaller(each, panels - first)), first_token, tokens);
  });
}

}  // namespace

void linear_int8(const Context& context, TensorView out, TensorView x, TensorView w,
                 const Epilogue& epilogue) {
  Product p{context, format_of(w.dtype), x, w, x.rows(), w.rows(), x.cols(), {}, 0, nullptr};
  if (p.m == 0 || p.n == 0) return;
  // Slabs of equal size: a last slab of a few tokens would unpack all weights for them.
  const int64_t slabs = ceil_div(p.m, kSlab), slab = ceil_div(p.m, slabs);
  p.group = ceil_div(smaller(slab, kTokenGroup), kTokenUnit) * kTokenUnit;
  const int64_t blocks_bytes =
      ceil_div(slab, p.group) * p.group * p.blocks() * static_cast<int64_t>(sizeof(ActivationBlock));
  const int64_t epilogue_bytes = row_epilogue_floats(p.n) * static_cast<int64_t>(sizeof(float));
  auto* memory = static_cast<std::byte*>(scratch(Scratch::kOp, epilogue_bytes + blocks_bytes));
  p.epilogue = make_row_epilogue(out, epilogue, p.n, reinterpret_cast<float*>(memory));
  p.activations = reinterpret_cast<ActivationBlock*>(memory + epilogue_bytes);
  for (int64_t t = 0; t < p.m && !p.cancelled(); t += slab) multiply_slab(p, t, smaller(slab, p.m - t));
}

}  // namespace kotoba::cpu::KOTOBA_ISA
