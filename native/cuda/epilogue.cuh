// out = activation(scale * acc + bias) * multiply + add: what matmuls do to their accumulators before the
// only store. Built without contraction of products and sums (-fmad=false), so every step is rounded.
#pragma once

#include "../op_types.h"
#include "launch.h"
#include "plain_vector.h"

namespace kotoba::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

__device__ __forceinline__ float apply(Activation activation, float x) {
  switch (activation) {
    case Activation::kGeluTanh:
      // x (1 + tanh u) / 2 = x sigmoid(2u) with u = sqrt(2/π) (x + 0.044715 x³)
      return x * sigmoid(fmaf(0.07135481627260025f * (x * x), x, 1.5957691216057308f * x));
    case Activation::kGeluErf:
      return x * (0.5f * erfcf(-0.70710678118654752f * x));
    case Activation::kQuickGelu:
      return x * sigmoid(1.702f * x);
    case Activation::kSilu:
      return x * sigmoid(x);
    default:
      return x;
  }
}

// An Epilogue with its output as bare pointers; strides in numbers.
struct RowEpilogue {
  Numbers out;
  int64_t out_stride;
  const float* scale;  // [n] or [1] or null
  bool one_scale;
  Vector bias;  // [n] or absent
  Activation activation;
  Numbers multiply;  // [m / multiply_rows, n] or absent
  int64_t multiply_stride, multiply_rows;
  const float* add;  // [m / add_rows, n] or null, may be `out`
  int64_t add_stride, add_rows;
  bool pairs;  // two neighbouring numbers of `out` from an even column on may be stored at once
  bool quads;  // four of `out`, `multiply` and `add` from a multiple of 4 on may be accessed at once
};

// Whether `count` numbers of x from any multiple of `count` on may be accessed at once.
inline bool groups_of(int count, const TensorView& x) {
  const uintptr_t bytes = static_cast<uintptr_t>(count) * static_cast<uintptr_t>(info(x.dtype).bytes);
  return reinterpret_cast<uintptr_t>(x.data) % bytes == 0 && x.row_stride % count == 0;
}

// `bias` is the epilogue's, decoded if need be; it must live until the launch.
inline RowEpilogue make_row_epilogue(const TensorView& out, const Epilogue& e, const PlainVector& bias) {
  RowEpilogue row = {};
  row.out = {out.data, out.dtype};
  row.out_stride = out.row_stride;
  row.scale = e.scale.as<float>();
  row.one_scale = !e.scale.empty() && e.scale.elements() == 1;
  row.bias = bias.get();
  row.activation = e.activation;
  row.multiply = {e.multiply.data, e.multiply.dtype};
  row.multiply_stride = e.multiply.row_stride;
  row.multiply_rows = e.multiply.empty() ? 1 : out.rows() / e.multiply.rows();
  row.add = e.add.as<float>();
  row.add_stride = e.add.row_stride;
  row.add_rows = e.add.empty() ? 1 : out.rows() / e.add.rows();
  row.pairs = groups_of(2, out);
  row.quads = groups_of(4, out) && groups_of(4, e.multiply) && groups_of(4, e.add);
  return row;
}

// What the epilogue makes of an accumulator.
__device__ __forceinline__ float finished(const RowEpilogue& e, int64_t row, int64_t col, float acc) {
  float v = acc;
  if (e.scale) v = v * e.scale[e.one_scale ? 0 : col];
  if (e.bias.data) v = v + load(e.bias, col);
  v = apply(e.activation, v);
  if (e.multiply.data) v = v * e.multiply.load(row / e.multiply_rows * e.multiply_stride + col);
  if (e.add) v = v + e.add[row / e.add_rows * e.add_stride + col];
  return v;
}

__device__ __forceinline__ void finish(const RowEpilogue& e, int64_t row, int64_t col, float acc) {
  e.out.store(row * e.out_stride + col, finished(e, row, col, acc));
}

// Columns col and col + 1, col even.
__device__ __forceinline__ void finish_pair(const RowEpilogue& e, int64_t row, int64_t col, float acc,
                                            float next) {
  const float v = finished(e, row, col, acc), w = finished(e, row, col + 1, next);
  const int64_t at = row * e.out_stride + col;
  if (e.pairs) return e.out.store_pair(at, v, w);
  e.out.store(at, v);
  e.out.store(at + 1, w);
}

// ---- four columns at a time, several rows at once

// The epilogue's numbers for columns col … col + 3, read once for many rows.
struct QuadColumns {
  float scale[4], bias[4];

  __device__ __forceinline__ void read(const RowEpilogue& e, int64_t col) {
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < 4; ++j) {
      scale[j] = e.scale ? e.scale[e.one_scale ? 0 : col + j] : 1;
      bias[j] = e.bias.data ? load(e.bias, col + j) : 0;
    }
  }
};

template <int kCount>
__device__ __forceinline__ void apply_to_all(Activation activation, float (&v)[kCount][4]) {
  const auto to_all = [&](Activation known) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4 * kCount; ++i) v[i / 4][i % 4] = apply(known, v[i / 4][i % 4]);
  };
  switch (activation) {  // once for all of them
    case Activation::kGeluTanh:
      return to_all(Activation::kGeluTanh);
    case Activation::kGeluErf:
      return to_all(Activation::kGeluErf);
    case Activation::kQuickGelu:
      return to_all(Activation::kQuickGelu);
    case Activation::kSilu:
      return to_all(Activation::kSilu);
    default:
      return;
  }
}

// finish() for columns col … col + 3 (col a multiple of 4, e.quads) of rows `row`, row + kStep, …, those
// below `rows`. All reads are under way before the first is used.
template <int kStep, int kCount>
__device__ __forceinline__ void finish_quads(const RowEpilogue& e, const QuadColumns& columns, int row,
                                             int rows, int64_t col, float (&v)[kCount][4]) {
  float multiply[kCount][4], add[kCount][4];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; ++i) {
    const int r = row + i * kStep;
    if (e.multiply.data && r < rows) {
      const int64_t group = e.multiply_rows == 1 ? r : r / static_cast<int>(e.multiply_rows);
      e.multiply.load_quad(group * e.multiply_stride + col, multiply[i]);
    }
    if (e.add && r < rows) {
      const int64_t group = e.add_rows == 1 ? r : r / static_cast<int>(e.add_rows);
      const float4 quad = *reinterpret_cast<const float4*>(e.add + group * e.add_stride + col);
      add[i][0] = quad.x, add[i][1] = quad.y, add[i][2] = quad.z, add[i][3] = quad.w;
    }
  }
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 4 * kCount; ++i) {
    float& value = v[i / 4][i % 4];
    if (e.scale) value = value * columns.scale[i % 4];
    if (e.bias.data) value = value + columns.bias[i % 4];
  }
  apply_to_all(e.activation, v);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kCount; ++i) {
    const int r = row + i * kStep;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < 4; ++j) {
      if (e.multiply.data) v[i][j] = v[i][j] * multiply[i][j];
      if (e.add) v[i][j] = v[i][j] + add[i][j];
    }
    if (r < rows) e.out.store_quad(r * e.out_stride + col, v[i]);
  }
}

}  // namespace kotoba::cuda
