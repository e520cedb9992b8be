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

// An Epilogue with its output as bare pointers; strides in floats.
struct RowEpilogue {
  float* out;
  int64_t out_stride;
  const float* scale;  // [n] or [1] or null
  bool one_scale;
  Vector bias;  // [n] or absent
  Activation activation;
  const float* multiply;  // [m / multiply_rows, n] or null
  int64_t multiply_stride, multiply_rows;
  const float* add;  // [m, n] or null, may be `out`
  int64_t add_stride;
};

// `bias` is the epilogue's, decoded if need be; it must live until the launch.
inline RowEpilogue make_row_epilogue(const TensorView& out, const Epilogue& e, const PlainVector& bias) {
  RowEpilogue row = {};
  row.out = out.as<float>();
  row.out_stride = out.row_stride;
  row.scale = e.scale.as<float>();
  row.one_scale = !e.scale.empty() && e.scale.elements() == 1;
  row.bias = bias.get();
  row.activation = e.activation;
  row.multiply = e.multiply.as<float>();
  row.multiply_stride = e.multiply.row_stride;
  row.multiply_rows = e.multiply.empty() ? 1 : out.rows() / e.multiply.rows();
  row.add = e.add.as<float>();
  row.add_stride = e.add.row_stride;
  return row;
}

__device__ __forceinline__ void finish(const RowEpilogue& e, int64_t row, int64_t col, float acc) {
  float v = acc;
  if (e.scale) v = v * e.scale[e.one_scale ? 0 : col];
  if (e.bias.data) v = v + load(e.bias, col);
  v = apply(e.activation, v);
  if (e.multiply) v = v * e.multiply[row / e.multiply_rows * e.multiply_stride + col];
  if (e.add) v = v + e.add[row * e.add_stride + col];
  e.out[row * e.out_stride + col] = v;
}

}  // namespace kotoba::cuda
