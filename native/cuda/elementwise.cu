// activate: out = activation(x)
// combine:  out = c[0] x[0] + c[1] x[1] + …, added up in this order
#include "epilogue.cuh"
#include "launch.h"
#include "ops.h"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTerms = 8;  // to a launch

// One thread to an element of [rows, cols].
__global__ void activate_kernel(float* out, int64_t out_stride, const float* x, int64_t x_stride,
                                int64_t count, int64_t cols, Activation activation) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t r = i / cols, c = i % cols;
  out[r * out_stride + c] = apply(activation, x[r * x_stride + c]);
}

struct TermList {
  const float* x[kTerms];
  int64_t stride[kTerms];
  float coefficient[kTerms];
  int count;
};

// `more`: out already holds the sum of earlier terms.
__global__ void combine_kernel(float* out, int64_t out_stride, TermList terms, int64_t count, int64_t cols,
                               bool more) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t r = i / cols, c = i % cols;
  float sum = more ? out[r * out_stride + c] : terms.coefficient[0] * terms.x[0][r * terms.stride[0] + c];
  for (int t = more ? 0 : 1; t < terms.count; ++t)
    sum = fmaf(terms.coefficient[t], terms.x[t][r * terms.stride[t] + c], sum);
  out[r * out_stride + c] = sum;
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

}  // namespace

// out, x: F32 [rows, cols]. `out` may alias `x`.
void activate(const Context& context, TensorView out, TensorView x, Activation activation) {
  const int64_t count = x.elements();
  launch(context.stream, {"activate", ceil_div(count, kThreads), kThreads}, activate_kernel, out.as<float>(),
         out.row_stride, x.as<float>(), x.row_stride, count, x.cols(), activation);
}

// out and every tensor: F32 [rows, cols]. `out` may alias any of them: where it is one of the terms of a
// later launch, the sum is made aside.
void combine(const Context& context, TensorView out, const Terms& terms) {
  const int64_t count = out.elements(), cols = out.cols();
  const bool split = terms.tensors.size() > kTerms;
  std::optional<Scratch> aside;
  TensorView sum = out;
  if (split) {
    aside.emplace(context.pool, dtype_bytes(DType::F32, count));
    sum.data = aside->as<std::byte>();
    sum.row_stride = cols;
  }
  for (size_t first = 0; first < terms.tensors.size(); first += kTerms) {
    const bool last = first + kTerms >= terms.tensors.size();
    launch(context.stream, {"combine", ceil_div(count, kThreads), kThreads}, combine_kernel, sum.as<float>(),
           sum.row_stride, term_list(terms, first), count, cols, first > 0);
    if (!last || !split) continue;
    TermList copy = {};
    copy.x[0] = sum.as<float>();
    copy.stride[0] = sum.row_stride;
    copy.coefficient[0] = 1;
    copy.count = 1;
    launch(context.stream, {"combine", ceil_div(count, kThreads), kThreads}, combine_kernel, out.as<float>(),
           out.row_stride, copy, count, cols, false);
  }
}

}  // namespace kotoba::cuda
