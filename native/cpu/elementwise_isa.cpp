// activate: out = activation(x)
// combine:  out = c[0] x[0] + c[1] x[1] + …, added up in this order
#include "epilogue.h"
#include "row_loops.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

// f(row, col, count) for all pieces of [rows, cols]. Dense tensors are one long row.
template <typename F>
KOTOBA_INLINE void for_each_piece(const Context& context, int64_t rows, int64_t cols, bool dense,
                                  const F& f) {
  if (rows == 0 || cols == 0) return;
  if (dense) {
    cols *= rows;
    rows = 1;
  }
  const int64_t pieces = (cols + kChunkElements - 1) / kChunkElements;
  for_each_row(context, rows * pieces, pieces == 1 ? cols : kChunkElements, [&](int64_t i) {
    const int64_t col = i % pieces * kChunkElements, rest = cols - col;
    f(i / pieces, col, rest < kChunkElements ? rest : kChunkElements);
  });
}

template <Activation A>
void activate_as(const Context& context, TensorView out, TensorView x) {
  for_each_piece(
      context, x.rows(), x.cols(), x.dense() && out.dense(), [&](int64_t row, int64_t col, int64_t count) {
        const float* from = x.row<float>(row) + col;
        map_row(out.row<float>(row) + col, count, [&](const auto& load) { return activate<A>(load(from)); });
      });
}

}  // namespace

// out, x: F32 [rows, cols]. `out` may alias `x`.
void activate(const Context& context, TensorView out, TensorView x, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return activate_as<Activation::kNone>(context, out, x);
    case Activation::kGeluTanh:
      return activate_as<Activation::kGeluTanh>(context, out, x);
    case Activation::kGeluErf:
      return activate_as<Activation::kGeluErf>(context, out, x);
    case Activation::kQuickGelu:
      return activate_as<Activation::kQuickGelu>(context, out, x);
    case Activation::kSilu:
      return activate_as<Activation::kSilu>(context, out, x);
  }
}

// out and every tensor: F32 [rows, cols]. `out` may alias any of them.
void combine(const Context& context, TensorView out, const Terms& terms) {
  const float* coefficients = terms.coefficients.data();
  const TensorView* x = terms.tensors.data();
  const int64_t count = static_cast<int64_t>(terms.tensors.size());
  bool dense = out.dense();
  for (int64_t i = 0; i < count; ++i) dense = dense && x[i].dense();
  for_each_piece(context, out.rows(), out.cols(), dense, [&](int64_t row, int64_t col, int64_t width) {
    auto* from =
        static_cast<const float**>(scratch(Scratch::kThread, count * static_cast<int64_t>(sizeof(float*))));
    for (int64_t i = 0; i < count; ++i) from[i] = x[i].row<float>(row) + col;
    map_row(out.row<float>(row) + col, width, [&](const auto& load) {
      VF sum = v_mul(v_set(coefficients[0]), load(from[0]));
      for (int64_t i = 1; i < count; ++i) sum = v_fma(v_set(coefficients[i]), load(from[i]), sum);
      return sum;
    });
  });
}

}  // namespace kotoba::cpu::KOTOBA_ISA
