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

// F32, or a 16-bit type where only matmuls and attention read it.
void require_inner(const DeviceLimits& limits, const char* op, const char* name, const TensorView& x) {
  require(!x.empty() && is_activation_dtype(x.dtype), op, ": ", name, " must be F32, F16 or BF16, got ",
          show(x));
  require(x.dtype == DType::F32 || limits.takes_16_bit, op, ": ", name, " must be F32 on this device, got ",
          show(x));
}

void require_inner_matrix(const DeviceLimits& limits, const char* op, const char* name, const TensorView& x,
                          int64_t rows, int64_t cols) {
  require_inner(limits, op, name, x);
  require(x.rows() == rows && x.cols() == cols, op, ": ", name, " must have ", rows, " rows of ", cols,
          ", got ", show(x));
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

// Of an output [m, n].
void require_epilogue(const DeviceLimits& limits, const char* op, const Epilogue& e, int64_t m, int64_t n) {
  if (!e.bias.empty()) require_vector(op, "bias", e.bias, n);
  const auto require_groups = [&](const char* name, const TensorView& x) {
    const int64_t groups = x.rows();
    require(groups > 0 && m % groups == 0, op, ": ", name, " ", show(x), " must have a row for each of ", m,
            " rows, or for each of equal groups of them");
    return groups;
  };
  if (!e.multiply.empty())
    require_inner_matrix(limits, op, "multiply", e.multiply, require_groups("multiply", e.multiply), n);
  if (!e.add.empty()) require_matrix(op, "add", e.add, require_groups("add", e.add), n);
  if (!e.scale.empty()) {
    require_f32(op, "scale", e.scale);
    require(e.scale.elements() == 1 || e.scale.elements() == n, op, ": scale must hold 1 or ", n,
            " values, got ", show(e.scale));
  }
}

void require_precision(const DeviceLimits& limits, const char* op, Precision precision) {
  require(limits.takes_16_bit || precision == Precision::kFp32 || precision == Precision::kInt8, op,
          ": the precisions fp16 and bf16 need a GPU; the device cpu has fp32 and int8");
}

int64_t checked_groups(const char* op, const char* name, const TensorView& x, int64_t groups) {
  require(groups > 0 && x.rows() % groups == 0, op, ": ", name, " ", show(x), " does not split into ", groups,
          " sequences");
  return x.rows() / groups;
}

// The sides of the two operands of patchify.
void check_patches(const char* op, const TensorView& image, const TensorView& tokens, const Patches& p) {
  require_f32(op, "the image", image);
  require_f32(op, "the tokens", tokens);
  require(p.height % p.patch == 0 && p.width % p.patch == 0, op, ": ", p.height, " x ", p.width,
          " is no multiple of the patch, ", p.patch);
  // In doubles, as the product of four sizes may leave 64 bits; equal to a tensor's elements, it is exact.
  const double pixels = double(p.batch) * double(p.channels) * double(p.height) * double(p.width);
  require(double(image.elements()) == pixels && image.dense(), op, ": the image must be dense [", p.batch,
          ", ", p.channels, ", ", p.height, ", ", p.width, "], got ", show(image));
  require_matrix(op, "tokens", tokens, p.batch * (p.height / p.patch) * (p.width / p.patch),
                 p.channels * p.patch * p.patch);
}

}  // namespace

void check_linear(const DeviceLimits& limits, const TensorView& out, const TensorView& x, const TensorView& w,
                  const Epilogue& e, Precision precision) {
  require_precision(limits, "linear", precision);
  require_inner(limits, "linear", "x", x);
  require_weight("linear", "w", w);
  require(w.rank == 2, "linear: w must be a matrix [n, k], got ", show(w));
  require(x.cols() == w.shape[1], "linear: x ", show(x), " does not fit w ", show(w),
          ": last dimensions differ");
  require_inner_matrix(limits, "linear", "out", out, x.rows(), w.shape[0]);
  require_epilogue(limits, "linear", e, x.rows(), w.shape[0]);
}

void check_attention(const DeviceLimits& limits, const TensorView& out, const TensorView& q,
                     const TensorView& k, const TensorView& v, const Attention& a) {
  require_inner(limits, "attention", "q", q);
  require_inner(limits, "attention", "k", k);
  require(k.dtype == q.dtype && v.dtype == q.dtype && out.dtype == q.dtype, "attention: q ", show(q), ", k ",
          show(k), ", v ", show(v), " and out ", show(out), " must be of one dtype");
  require(a.batch > 0 && a.heads > 0, "attention: batch and heads must be positive, got ", a.batch, " and ",
          a.heads);
  require(q.cols() % a.heads == 0, "attention: q ", show(q), " does not split into ", a.heads, " heads");
  require(q.rows() % a.batch == 0 && k.rows() % a.batch == 0, "attention: q ", show(q), " and k ", show(k),
          " do not split into ", a.batch, " sequences");
  require_inner_matrix(limits, "attention", "k", k, k.rows(), q.cols());
  require_inner_matrix(limits, "attention", "v", v, k.rows(), q.cols());
  require_inner_matrix(limits, "attention", "out", out, q.rows(), q.cols());
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

void check_rms_norm(const DeviceLimits& limits, const TensorView& out, const TensorView& x,
                    const TensorView& weight, float) {
  require_f32("rms_norm", "x", x);
  require_inner_matrix(limits, "rms_norm", "out", out, x.rows(), x.cols());
  require_vector("rms_norm", "weight", weight, x.cols());
}

void check_layer_norm(const DeviceLimits& limits, const TensorView& out, const TensorView& x,
                      const TensorView& weight, const TensorView& bias, float) {
  require_f32("layer_norm", "x", x);
  require_inner_matrix(limits, "layer_norm", "out", out, x.rows(), x.cols());
  require_vector("layer_norm", "weight", weight, x.cols());
  require_vector("layer_norm", "bias", bias, x.cols());
}

void check_layer_norm_modulated(const DeviceLimits& limits, const TensorView& out, const TensorView& x,
                                const TensorView& shift, const TensorView& scale, float) {
  require_f32("layer_norm_modulated", "x", x);
  require_inner_matrix(limits, "layer_norm_modulated", "out", out, x.rows(), x.cols());
  require_f32("layer_norm_modulated", "shift", shift);
  checked_groups("layer_norm_modulated", "x", x, shift.rows());
  require_matrix("layer_norm_modulated", "shift", shift, shift.rows(), x.cols());
  require_matrix("layer_norm_modulated", "scale", scale, shift.rows(), x.cols());
}

void check_head_norm_rope(const DeviceLimits& limits, const TensorView& out, const TensorView& x,
                          const TensorView& weight, const TensorView& rotation, const HeadNormRope& how) {
  const char* op = "head_norm_rope";
  require_inner(limits, op, "x", x);
  require_inner(limits, op, "out", out);
  require(how.heads > 0 && x.cols() % how.heads == 0, op, ": x ", show(x), " does not split into ", how.heads,
          " heads");
  const int64_t head_dim = x.cols() / how.heads;
  const int64_t tokens = checked_groups(op, "x", x, how.batch),
                longer = checked_groups(op, "out", out, how.batch);
  require(out.cols() == x.cols() && how.offset >= 0 && how.offset + tokens <= longer, op, ": x ", show(x),
          " does not fit into out ", show(out), " at token ", how.offset);
  if (!weight.empty()) require_vector(op, "weight", weight, head_dim);
  if (!rotation.empty()) {
    require(head_dim % 2 == 0, op, ": heads of ", head_dim, " columns have no pairs to rotate");
    require_matrix(op, "rotation", rotation, longer, head_dim);
  }
}

void check_copy_tokens(const DeviceLimits& limits, const TensorView& out, const TensorView& x,
                       const CopyTokens& how) {
  require_inner(limits, "copy_tokens", "x", x);
  require(out.dtype == x.dtype, "copy_tokens: out ", show(out), " must be of the dtype of x ", show(x));
  const int64_t from = checked_groups("copy_tokens", "x", x, how.batch);
  const int64_t to = checked_groups("copy_tokens", "out", out, how.batch);
  require(out.cols() == x.cols() && how.tokens >= 0 && how.x_offset >= 0 && how.out_offset >= 0 &&
              how.x_offset + how.tokens <= from && how.out_offset + how.tokens <= to,
          "copy_tokens: ", how.tokens, " tokens from ", how.x_offset, " of x ", show(x), " to ",
          how.out_offset, " of out ", show(out), " do not fit");
}

void check_activate(const DeviceLimits& limits, const TensorView& out, const TensorView& x, Activation) {
  require_inner(limits, "activate", "x", x);
  require_inner_matrix(limits, "activate", "out", out, x.rows(), x.cols());
}

void check_combine(const DeviceLimits&, const TensorView& out, const Terms& terms) {
  require_f32("combine", "out", out);
  require(!terms.tensors.empty() && terms.tensors.size() == terms.coefficients.size(),
          "combine: needs one coefficient for each of at least one tensor");
  for (const TensorView& x : terms.tensors)
    require_matrix("combine", "every tensor", x, out.rows(), out.cols());
}

void check_conv2d(const DeviceLimits& limits, const TensorView& out, const TensorView& x, const TensorView& w,
                  const Epilogue& e, const Conv2d& how, Precision precision) {
  require_precision(limits, "conv2d", precision);
  require_inner(limits, "conv2d", "x", x);
  require_weight("conv2d", "w", w);
  require(how.upscale == 1 || how.upscale == 2, "conv2d: upscale must be 1 or 2, got ", how.upscale);
  // In doubles, as products of sizes may leave 64 bits; equal to what a tensor holds, they are exact.
  require(double(x.rows()) == double(how.batch) * double(how.height) * double(how.width), "conv2d: x ",
          show(x), " does not hold ", how.batch, " images of ", how.height, " x ", how.width, " pixels");
  // In the order of files the kernel is told by the shape. GPUs, which take 16 bits, have no kernel for it.
  const bool stored = w.rank == 4 && !limits.takes_16_bit && info(w.dtype).block == 1;
  const bool fits = stored ? w.shape[1] == x.cols() && w.shape[2] == how.kernel && w.shape[3] == how.kernel
                           : w.rank == 2 && double(w.shape[1]) ==
                                                double(how.kernel) * double(how.kernel) * double(x.cols());
  require(fits, "conv2d: w ", show(w), " does not fit ", x.cols(), " channels and a kernel of ", how.kernel);
  require(how.height * how.upscale + how.pad_before + how.pad_after >= how.kernel &&
              how.width * how.upscale + how.pad_before + how.pad_after >= how.kernel,
          "conv2d: an image of ", how.height, " x ", how.width, " is smaller than the kernel, ", how.kernel);
  const int64_t height = how.out_size(how.height), width = how.out_size(how.width);
  require_inner(limits, "conv2d", "out", out);
  require(double(out.rows()) == double(how.batch) * double(height) * double(width), "conv2d: out ", show(out),
          " does not hold ", how.batch, " images of ", height, " x ", width, " pixels");
  const int64_t m = out.rows();
  require_inner_matrix(limits, "conv2d", "out", out, m, w.shape[0]);
  require_epilogue(limits, "conv2d", e, m, w.shape[0]);
}

void check_conv_weight(const DeviceLimits&, const TensorView& out, const TensorView& w, int64_t taps) {
  require_weight("conv_weight", "w", w);
  require(taps > 0 && out.rows() == w.rows() && out.cols() == w.cols() && out.dense() && w.cols() % taps == 0,
          "conv_weight: out ", show(out), " and w ", show(w), " must be [n, c * ", taps, "]");
  require(out.dtype == DType::F32 || (out.dtype == w.dtype && info(w.dtype).block == 1),
          "conv_weight: out must be F32 or of w's unquantised dtype, got ", show(out), " from ", show(w));
}

void check_group_norm(const DeviceLimits& limits, const TensorView& out, const TensorView& x,
                      const TensorView& weight, const TensorView& bias, const GroupNorm& how) {
  require_inner(limits, "group_norm", "x", x);
  require_inner_matrix(limits, "group_norm", "out", out, x.rows(), x.cols());
  require_vector("group_norm", "weight", weight, x.cols());
  require_vector("group_norm", "bias", bias, x.cols());
  checked_groups("group_norm", "x", x, how.batch);
  require(how.groups > 0 && x.cols() % how.groups == 0, "group_norm: ", x.cols(),
          " channels do not split into ", how.groups, " groups");
}

void check_patchify(const DeviceLimits&, const TensorView& out, const TensorView& x, const Patches& how) {
  check_patches("patchify", x, out, how);
}

void check_unpatchify(const DeviceLimits&, const TensorView& out, const TensorView& x, const Patches& how) {
  check_patches("unpatchify", out, x, how);
}

void check_embedding(const DeviceLimits&, const TensorView& out, const TensorView& table,
                     const TensorView& ids, bool) {
  require_weight("embedding", "table", table);
  require(table.rank == 2, "embedding: table must be a matrix, got ", show(table));
  require(!ids.empty() && ids.dtype == DType::I32 && ids.dense(), "embedding: ids must be dense I32, got ",
          show(ids));
  require_matrix("embedding", "out", out, ids.elements(), table.cols());
}

void check_decode(const DeviceLimits& limits, const TensorView& out, const TensorView& x) {
  require_weight("decode", "x", x);
  require_inner_matrix(limits, "decode", "out", out, x.rows(), x.cols());
}

void check_quantize(const DeviceLimits&, const TensorView& out, const TensorView& x) {
  require_f32("quantize", "x", x);
  require_weight("quantize", "out", out);
  require(out.rows() == x.rows() && out.cols() == x.cols() && x.dense(), "quantize: out ", show(out),
          " must have the shape of x ", show(x), ", which must be dense");
}

void check_transpose(const DeviceLimits&, const TensorView& out, const TensorView& x) {
  require_weight("transpose", "x", x);
  require(x.rank == 2 && out.dense(), "transpose: x must be a matrix and out dense, got ", show(x));
  require_matrix("transpose", "out", out, x.cols(), x.rows());
}

void check_require_finite(const DeviceLimits&, const TensorView& x, const std::string&) {
  require_f32("require_finite", "x", x);
}

}  // namespace kotoba
