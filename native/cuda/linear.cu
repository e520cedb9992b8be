// linear: out [m, n] = activation(scale * (x [m, k] · w [n, k]ᵀ) + bias) * multiply + add, w of any dtype.
// This file chooses the route: which numbers are multiplied, and in what form the weights get there.
#include "linear.h"

#include "dense.h"
#include "operands.h"

namespace kotoba::cuda {
namespace {

constexpr int64_t kExpandedBytes = int64_t{64} << 20;  // of scratch, where weights are expanded for one use

// ---- 16-bit factors: weights that are stored otherwise are expanded, for good if there is room

DenseProblem dense_problem(const LinearProblem& p, const Operand& x) {
  return {.size = {p.size.m, p.size.n, padded(p.size.k)},
          .dtype = p.rounded(),
          .x = x.data,
          .w = p.w.as<const uint16_t>(),
          .x_stride = x.stride,
          .w_stride = p.w.row_stride,
          .epilogue = p.epilogue,
          .arch = p.arch,
          .multiprocessors = p.multiprocessors};
}

// Some rows of the weights at a time.
void run_dense_in_parts(const Context& context, const LinearProblem& p, DenseProblem dense) {
  const int64_t row_bytes = 2 * dense.size.k;
  const int64_t at_once = std::min(p.size.n, std::max<int64_t>(512, kExpandedBytes / row_bytes));
  const Scratch expanded(context.pool, at_once * row_bytes);
  dense.w = expanded.as<uint16_t>();
  dense.w_stride = dense.size.k;
  for (int64_t first = 0; first < p.size.n; first += at_once) {
    TensorView rows = p.w;
    rows.shape[0] = dense.size.n = std::min(at_once, p.size.n - first);
    rows.data = p.w.row_bytes(first);
    expand(context, expanded.as<uint16_t>(), rows, dense.dtype);
    dense.epilogue = from_column(p.epilogue, first);
    dense_matmul(context, dense);
  }
}

void run_dense(const Context& context, const LinearProblem& p) {
  const Operand x = activation_operand(context, p.x, p.rounded());
  DenseProblem dense = dense_problem(p, x);
  if (p.w.dtype == dense.dtype && is_operand(p.w)) return dense_matmul(context, dense);
  const WeightForm form = dense.dtype == DType::F16 ? WeightForm::kF16 : WeightForm::kBf16;
  const std::byte* kept = context.forms.get(p.w, form, 2 * p.size.n * dense.size.k, [&](std::byte* out) {
    expand(context, reinterpret_cast<uint16_t*>(out), p.w, dense.dtype);
  });
  if (!kept) return run_dense_in_parts(context, p, dense);
  dense.w = reinterpret_cast<const uint16_t*>(kept);
  dense.w_stride = dense.size.k;
  dense_matmul(context, dense);
}

// ---- any problem

void run_simt(const Context& context, const LinearProblem& p) {
  matmul_simt(context, "linear_simt_64x64", p.size, activation_rows(p.x), p.w, p.epilogue);
}

// Costs are an order of preference.
constexpr Variant<LinearProblem> kRoutes[] = {
    {"gemv", [](const LinearProblem& p) { return gemv_fits(p) ? 1.0 : kUnfit; }, run_gemv},
    {"fused_quant", [](const LinearProblem& p) { return quant_matmul_fits(p) ? 2.0 : kUnfit; },
     run_quant_matmul},
    {"split", [](const LinearProblem& p) { return split_fits(p) ? 3.0 : kUnfit; }, run_split},
    {"dense", [](const LinearProblem& p) { return p.is_16_bit() ? 4.0 : kUnfit; }, run_dense},
    {"simt_64x64", [](const LinearProblem& p) { return p.is_16_bit() ? kUnfit : 5.0; }, run_simt},
};

}  // namespace

void linear(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue,
            Precision precision) {
  if (out.elements() == 0) return;
  const PlainVector bias(context, epilogue.bias);
  const LinearProblem problem = {.size = {x.rows(), w.shape[0], x.cols()},
                                 .x = x,
                                 .w = w,
                                 .epilogue = make_row_epilogue(out, epilogue, bias),
                                 .precision = precision == Precision::kInt8 ? Precision::kFp32 : precision,
                                 .arch = context.arch,
                                 .multiprocessors = context.multiprocessors};
  run_variant<LinearProblem>(context, "linear", {kRoutes}, problem);
}

}  // namespace kotoba::cuda
