// activate: out = activation(x)
// combine:  out = c[0] x[0] + c[1] x[1] + …, added up in this order
#include <optional>

#include "epilogue.cuh"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = kTileThreadCount;
constexpr int kTerms = 8;  // to a launch
constexpr int kVector = 4;

struct Map {
  Numbers out;
  const std::byte* x;
  int64_t out_stride, x_stride, rows, cols;
};

template <typename From, int kCount>
__global__ void __launch_bounds__(kThreads) activate_kernel(Map p, RowTiles tiles, Activation activation) {
  const RowTiles::Place at = tiles.place<kCount>();
  if (at.row >= p.rows) return;
  const auto* x = reinterpret_cast<const typename From::Stored*>(p.x) + at.row * p.x_stride;
  float v[kVectorsAtOnce][kCount];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (at.col + i * at.step < p.cols) load_vector<From>(v[i], x + at.col + i * at.step);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i) {
    if (at.col + i * at.step >= p.cols) continue;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kCount; ++j) v[i][j] = apply(activation, v[i][j]);
    store_vector(p.out, at.row * p.out_stride + at.col + i * at.step, v[i]);
  }
}

struct TermList {
  const float* x[kTerms];
  int64_t stride[kTerms];
  float coefficient[kTerms];
  int count;
};

// `more`: out already holds the sum of earlier terms.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(float* out, int64_t out_stride, TermList terms, int64_t rows, int64_t cols, RowTiles tiles,
                   bool more) {
  const RowTiles::Place at = tiles.place<kCount>();
  if (at.row >= rows) return;
  float sum[kVectorsAtOnce][kCount] = {};
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (more && at.col + i * at.step < cols)
      load_vector<F32Number>(sum[i], out + at.row * out_stride + at.col + i * at.step);
  for (int t = 0; t < terms.count; ++t) {
    const float* x = terms.x[t] + at.row * terms.stride[t] + at.col;
    const float coefficient = terms.coefficient[t];
    float v[kVectorsAtOnce][kCount];
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kVectorsAtOnce; ++i)
      if (at.col + i * at.step < cols) load_vector<F32Number>(v[i], x + i * at.step);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kVectorsAtOnce; ++i) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kCount; ++j)
      sum[i][j] = t == 0 && !more ? coefficient * v[i][j] : fmaf(coefficient, v[i][j], sum[i][j]);
  }
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (at.col + i * at.step < cols)
      store_vector<F32Number>(out + at.row * out_stride + at.col + i * at.step, sum[i]);
}

TermList term_list(const Terms& terms, size_t first) {
  TermList list = {};
  for (size_t i = first; i < terms.tensors.size() && list.count < kTerms; ++i, ++list.count) {
    list.x[list.count] = terms.tensors[i].as<float>();
    list.stride[list.count] = terms.tensors[i].row_stride;
    list.coefficient[list.count] = terms.coefficients[i];
  }
  return list;
}

// out [rows, cols] = or += the terms of `list`, dense ones as a single row.
void add_terms(const Context& context, const TensorView& out, TermList list, bool more) {
  const auto all = [&](auto fits) {
    for (int t = 0; t < list.count; ++t)
      if (!fits(list.x[t], list.stride[t])) return false;
    return fits(out.as<const float>(), out.row_stride);
  };
  int64_t rows = out.rows(), cols = out.cols(), out_stride = out.row_stride;
  if (all([&](const float*, int64_t stride) { return stride == cols; })) {
    cols *= rows;
    rows = rows == 0 ? 0 : 1;
  }
  const bool wide = cols % kVector == 0 && all([](const float* x, int64_t stride) {
                      return reinterpret_cast<uintptr_t>(x) % 16 == 0 && stride % kVector == 0;
                    });
  const RowTiles tiles(rows, cols, wide ? kVector : 1);
  launch(context.stream, {"combine", tiles.blocks(), kThreads},
         wide ? combine_kernel<kVector> : combine_kernel<1>, out.as<float>(), out_stride, list, rows, cols,
         tiles, more);
}

template <typename From, int kCount>
void run_activate(const Context& context, const TensorView& out, const TensorView& x, Activation activation) {
  const Map map = {{out.data, out.dtype}, x.data, out.row_stride, x.row_stride, x.rows(), x.cols()};
  const RowTiles tiles(map.rows, map.cols, kCount);
  launch(context.stream, {"activate", tiles.blocks(), kThreads}, activate_kernel<From, kCount>, map, tiles,
         activation);
}

}  // namespace

// out, x: activations [rows, cols]. `out` may alias `x` of its own dtype.
void activate(const Context& context, TensorView out, TensorView x, Activation activation) {
  if (out.dense() && x.dense()) {
    out = flattened(out);
    x = flattened(x);
  }
  dispatch_activation(x.dtype, "activate", [&]<typename From>() {
    constexpr int kCount = 16 / static_cast<int>(sizeof(typename From::Stored));
    if (fits_vectors(x, kCount) && fits_vectors(out, kCount))
      run_activate<From, kCount>(context, out, x, activation);
    else
      run_activate<From, 1>(context, out, x, activation);
  });
}

// out and every tensor: F32 [rows, cols]. `out` may alias any of them: where it is one of the terms of a
// later launch, the sum is made aside.
void combine(const Context& context, TensorView out, const Terms& terms) {
  const bool split = terms.tensors.size() > kTerms;
  std::optional<Scratch> aside;
  TensorView sum = out;
  if (split) {
    aside.emplace(context.pool, dtype_bytes(DType::F32, out.elements()));
    sum.data = aside->as<std::byte>();
    sum.row_stride = out.cols();
  }
  for (size_t first = 0; first < terms.tensors.size(); first += kTerms)
    add_terms(context, sum, term_list(terms, first), first > 0);
  if (split) add_terms(context, out, term_list({{1}, {sum}}, 0), false);
}

}  // namespace kotoba::cuda
