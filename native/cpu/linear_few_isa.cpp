// The FP32 matmul for a few tokens, where reading the weights is the cost: each row is read once and dotted
// with all tokens; lanes run along k.
#include "linear_problem.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

constexpr int kRows = 4;          // rows of a register tile
constexpr int64_t kPiece = 1024;  // columns decoded at a time: 16 KB of L1
constexpr int64_t kChunkRows = 64;
constexpr int64_t kAhead = 512;  // floats of each row asked for before their use: 2 KB hide a memory access

using Sums = VF[kRows][kFewTokens];

// sums += weights [kRows, count] · x [T, count]ᵀ
template <int T>
void dot_tile(Sums& sums, const float* weights, int64_t pitch, const float* x, int64_t x_stride,
              int64_t count) {
  VF sum[kRows][T];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[r][t] = v_zero();
  const auto step = [&](int64_t i, auto load) __attribute__((always_inline)) {
    VF tokens[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) tokens[t] = load(x + t * x_stride + i);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      __builtin_prefetch(weights + r * pitch + i + kAhead);
      const VF w = load(weights + r * pitch + i);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sum[r][t] = v_fma(w, tokens[t], sum[r][t]);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) step(i, [](const float* p) { return v_load(p); });
  if (i < count) step(i, [rest = count - i](const float* p) { return v_load_partial(p, rest); });
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sums[r][t] = v_add(sums[r][t], sum[r][t]);
}

constexpr void (*kDotTiles[kFewTokens + 1])(Sums&, const float*, int64_t, const float*, int64_t, int64_t) = {
    nullptr, dot_tile<1>, dot_tile<2>, dot_tile<3>, dot_tile<4>};

// The products of `rows` <= kRows weight rows with all tokens, to dots[token * kChunkRows + row]. `pieces` is
// [kRows, kPiece]. F32 rows are used where they are.
void dot_rows(const LinearProblem& p, const float* x, int64_t x_stride, int64_t row, int64_t rows,
              float* pieces, float* dots) {
  Sums sums;
  for (auto& row_sums : sums)
    for (VF& sum : row_sums) sum = v_zero();
  const bool in_place = p.w_dtype == DType::F32 && rows == kRows;
  for (int64_t col = 0; col < p.k; col += kPiece) {
    const int64_t count = p.k - col < kPiece ? p.k - col : kPiece;
    if (!in_place)
      for (int64_t r = 0; r < rows; ++r) p.decode(p.weights(row + r, col), pieces + r * kPiece, count);
    const float* weights = in_place ? reinterpret_cast<const float*>(p.weights(row, col)) : pieces;
    kDotTiles[p.m](sums, weights, in_place ? p.w_stride / 4 : kPiece, x + col, x_stride, count);
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t t = 0; t < p.m; ++t) dots[t * kChunkRows + r] = v_sum(sums[r][t]);
}

}  // namespace

void linear_few_tokens(const Context& context, const LinearProblem& p, const float* x, int64_t x_stride) {
  const int64_t chunks = (p.n + kChunkRows - 1) / kChunkRows;
  context.pool->run(context.threads, chunks, [&](int64_t chunk) {
    if (is_cancelled(context)) return;
    alignas(64) float pieces[kRows * kPiece] = {};
    alignas(64) float dots[kFewTokens * kChunkRows];
    const int64_t begin = chunk * kChunkRows, rest = p.n - begin,
                  rows = rest < kChunkRows ? rest : kChunkRows;
    for (int64_t r = 0; r < rows; r += kRows)
      dot_rows(p, x, x_stride, begin + r, rows - r < kRows ? rows - r : kRows, pieces, dots + r);
    for (int64_t t = 0; t < p.m; ++t) finish_row(p.epilogue, t, begin, rows, dots + t * kChunkRows);
  });
}

}  // namespace kotoba::cpu::KOTOBA_ISA
