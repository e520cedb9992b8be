#include "op_checks.h"

#include <cmath>

#include "errors.h"

namespace kotoba {
namespace {

std::string show(const TensorView& x) {
  if (x.empty()) return "nothing";
  std::string text = info(x.dtype).name;
  text += " [";
  for (int i = 0; i < x.rank; ++i) text += (i ? ", " : "") + std::to_string(x.shape[i]);
  return text + "]";
}

void require_f32(const char* op, const char* name, const TensorView& x) {
  require(!x.empty() && x.dtype == DType::F32, op, ": ", name, " must be F32, got ", show(x));
}

void require_matrix(const char* op, const char* name, const TensorView& x, int64_t rows, int64_t cols) {
  require_f32(op, name, x);
  require(x.rows() == rows && x.cols() == cols, op, ": ", name, " must be F32 with ", rows, " rows of ", cols,
          ", got ", show(x));
}

void require_weight(const char* op, const char* name, const TensorView& w) {
  require(!w.empty() && is_weight_dtype(w.dtype), op, ": ", name,
          " must be a float or quantised tensor, got ", show(w));
  require(w.dense(), op, ": ", name, " must be dense");
}

void require_vector(const char* op, const char* name, const TensorView& w, int64_t length) {
  require_weight(op, name, w);
  require(w.elements() == length, op, ": ", name, " must hold ", length, " values, got ", show(w));
}

}  // namespace

void check_linear(const TensorView& out, const TensorView& x, const TensorView& w, const Epilogue& e,
                  Precision) {
  require_f32("linear", "x", x);
  require_weight("linear", "w", w);
  require(w.rank == 2, "linear: w must be a matrix [n, k], got ", show(w));
  require(x.cols() == w.shape[1], "linear: x ", show(x), " does not fit w ", show(w),
          ": last dimensions differ");
  require_matrix("linear", "out", out, x.rows(), w.shape[0]);
  if (!e.bias.empty()) require_vector("linear", "bias", e.bias, w.shape[0]);
  if (!e.multiply.empty()) require_matrix("linear", "multiply", e.multiply, x.rows(), w.shape[0]);
  if (!e.add.empty()) require_matrix("linear", "add", e.add, x.rows(), w.shape[0]);
  if (!e.scale.empty()) {
    require_f32("linear", "scale", e.scale);
    require(e.scale.elements() == 1 || e.scale.elements() == w.shape[0], "linear: scale must hold 1 or ",
            w.shape[0], " values, got ", show(e.scale));
  }
}

void check_attention(const TensorView& out, const TensorView& q, const TensorView& k, const TensorView& v,
                     const Attention& a) {
  require_f32("attention", "q", q);
  require_f32("attention", "k", k);
  require(a.batch > 0 && a.heads > 0, "attention: batch and heads must be positive, got ", a.batch, " and ",
          a.heads);
  require(q.cols() % a.heads == 0, "attention: q ", show(q), " does not split into ", a.heads, " heads");
  require(q.rows() % a.batch == 0 && k.rows() % a.batch == 0, "attention: q ", show(q), " and k ", show(k),
          " do not split into ", a.batch, " sequences");
  require_matrix("attention", "k", k, k.rows(), q.cols());
  require_matrix("attention", "v", v, k.rows(), q.cols());
  require_matrix("attention", "out", out, q.rows(), q.cols());
  require(!a.causal || q.rows() == k.rows(), "attention: causal needs as many queries as keys");
  if (!a.key_mask.empty())
    require(a.key_mask.dtype == DType::I32 && a.key_mask.elements() == k.rows() && a.key_mask.dense(),
            "attention: key_mask must be dense I32 with ", k.rows(), " values, got ", show(a.key_mask));
  if (!a.bias_table.empty()) {
    require_weight("attention", "bias_table", a.bias_table);
    require(a.bias_table.rank == 2 && a.bias_table.cols() == a.heads,
            "attention: bias_table must be [buckets, ", a.heads, "], got ", show(a.bias_table));
    require(a.bias_table.rows() >= 4 && a.max_distance > a.bias_table.rows() / (a.bidirectional ? 4 : 2),
            "attention: max_distance ", a.max_distance, " is too small for ", a.bias_table.rows(),
            " buckets");
  }
}

void check_rms_norm(const TensorView& out, const TensorView& x, const TensorView& weight, float) {
  require_f32("rms_norm", "x", x);
  require_matrix("rms_norm", "out", out, x.rows(), x.cols());
  require_vector("rms_norm", "weight", weight, x.cols());
}

void check_layer_norm(const TensorView& out, const TensorView& x, const TensorView& weight,
                      const TensorView& bias, float) {
  require_f32("layer_norm", "x", x);
  require_matrix("layer_norm", "out", out, x.rows(), x.cols());
  require_vector("layer_norm", "weight", weight, x.cols());
  require_vector("layer_norm", "bias", bias, x.cols());
}

void check_embedding(const TensorView& out, const TensorView& table, const TensorView& ids, bool) {
  require_weight("embedding", "table", table);
  require(table.rank == 2, "embedding: table must be a matrix, got ", show(table));
  require(!ids.empty() && ids.dtype == DType::I32 && ids.dense(), "embedding: ids must be dense I32, got ",
          show(ids));
  require_matrix("embedding", "out", out, ids.elements(), table.cols());
}

void check_decode(const TensorView& out, const TensorView& x) {
  require_weight("decode", "x", x);
  require_matrix("decode", "out", out, x.rows(), x.cols());
}

void check_transpose(const TensorView& out, const TensorView& x) {
  require_weight("transpose", "x", x);
  require(x.rank == 2 && out.dense(), "transpose: x must be a matrix and out dense, got ", show(x));
  require_matrix("transpose", "out", out, x.cols(), x.rows());
}

void check_require_finite(const TensorView& x, const std::string&) { require_f32("require_finite", "x", x); }

}  // namespace kotoba
