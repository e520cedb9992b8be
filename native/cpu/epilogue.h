// out = activation(scale * acc + bias) * multiply + add: what `linear` does to its accumulators before the
// only store. For *_isa.cpp files only.
#pragma once

#include "isa.h"
#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

// An Epilogue with its output as bare pointers. Rows are tokens, columns output features; strides in floats.
struct RowEpilogue {
  float* out;
  int64_t out_stride;
  const float* scale;  // [n], or null: scale_all for every column
  float scale_all;
  const float* bias;  // [n] or null
  Activation activation;
  const float* multiply;  // [m / multiply_rows, n] or null
  int64_t multiply_stride;
  int64_t multiply_rows;  // output rows that share a row of `multiply`
  const float* add;       // [m / add_rows, n] or null, may be `out`
  int64_t add_stride;
  int64_t add_rows;  // output rows that share a row of `add`
};

// Floats of scratch that make_row_epilogue wants for an output of `n` columns.
KOTOBA_INLINE int64_t row_epilogue_floats(int64_t n) { return 2 * ((n + 15) / 16 * 16); }

// `buffer` must live as long as the result: scale and bias are decoded into it, for their bytes in a file may
// be of any dtype and alignment.
static inline RowEpilogue make_row_epilogue(const TensorView& out, const Epilogue& e, int64_t n,
                                            float* buffer) {
  RowEpilogue row{};
  row.out = reinterpret_cast<float*>(out.data);
  row.out_stride = out.row_stride;
  row.scale_all = 1;
  if (e.scale.data != nullptr) {
    const bool single = e.scale.elements() == 1;
    if (single) {
      memcpy(&row.scale_all, e.scale.data, sizeof(float));
    } else {
      memcpy(buffer, e.scale.data, n * sizeof(float));
      row.scale = buffer;
    }
  }
  if (e.bias.data != nullptr) {
    float* bias = buffer + row_epilogue_floats(n) / 2;
    decode_row(e.bias.dtype, e.bias.data, bias, n);
    row.bias = bias;
  }
  row.activation = e.activation;
  // A stride of 0 finds the row of a single group without a division.
  const auto share = [&](const TensorView& x, const float*& data, int64_t& stride, int64_t& rows) {
    data = reinterpret_cast<const float*>(x.data);
    if (data == nullptr) return;
    const int64_t groups = x.rows();
    stride = groups == 1 ? 0 : x.row_stride;
    rows = groups == 1 ? 1 : out.rows() / groups;
  };
  share(e.multiply, row.multiply, row.multiply_stride, row.multiply_rows);
  share(e.add, row.add, row.add_stride, row.add_rows);
  return row;
}

template <Activation A>
KOTOBA_INLINE VF activate(VF v) {
  // GELU, tanh form: x (1 + tanh u) / 2 = x sigmoid(2u) with u = sqrt(2/π) (x + 0.044715 x³).
  if constexpr (A == Activation::kGeluTanh) {
    const VF inner =
        v_fma(v_mul(v_set(0.07135481627260025f), v_mul(v, v)), v, v_mul(v_set(1.5957691216057308f), v));
    return v_mul(v, v_sigmoid(inner));
  }
  if constexpr (A == Activation::kGeluErf) return v_mul(v, v_normal_cdf(v));
  if constexpr (A == Activation::kQuickGelu) return v_mul(v, v_sigmoid(v_mul(v_set(1.702f), v)));
  if constexpr (A == Activation::kSilu) return v_mul(v, v_sigmoid(v));
  return v;
}

template <Activation A>
KOTOBA_INLINE void finish_row_as(const RowEpilogue& e, int64_t row, int64_t col, int64_t count,
                                 const float* acc) {
  float* out = e.out + row * e.out_stride + col;
  const float* scale = e.scale ? e.scale + col : nullptr;
  const float* bias = e.bias ? e.bias + col : nullptr;
  const auto of_row = [&](const float* x, int64_t stride, int64_t rows) {
    return x == nullptr ? nullptr : x + (rows == 1 ? row : row / rows) * stride + col;
  };
  const float* multiply = of_row(e.multiply, e.multiply_stride, e.multiply_rows);
  const float* add = of_row(e.add, e.add_stride, e.add_rows);
  const VF scale_all = v_set(e.scale_all);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = count - i;
    const bool whole = n >= kLanes;
    const auto load = [&](const float* p) { return whole ? v_load(p + i) : v_load_partial(p + i, n); };
    VF v = v_mul(load(acc), scale ? load(scale) : scale_all);
    if (bias) v = v_add(v, load(bias));
    v = activate<A>(v);
    if (multiply) v = v_mul(v, load(multiply));
    if (add) v = v_add(v, load(add));
    if (whole)
      v_store(out + i, v);
    else
      v_store_partial(out + i, v, n);
  }
}

// Stores out[row, col … col + count) from their accumulators.
static inline void finish_row(const RowEpilogue& e, int64_t row, int64_t col, int64_t count,
                              const float* acc) {
  switch (e.activation) {
    case Activation::kNone:
      return finish_row_as<Activation::kNone>(e, row, col, count, acc);
    case Activation::kGeluTanh:
      return finish_row_as<Activation::kGeluTanh>(e, row, col, count, acc);
    case Activation::kGeluErf:
      return finish_row_as<Activation::kGeluErf>(e, row, col, count, acc);
    case Activation::kQuickGelu:
      return finish_row_as<Activation::kQuickGelu>(e, row, col, count, acc);
    case Activation::kSilu:
      return finish_row_as<Activation::kSilu>(e, row, col, count, acc);
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
