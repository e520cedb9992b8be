// out = softmax(scale * q kᵀ + bias) v for each sequence and head, without ever holding the [queries, keys]
// scores. Kernels by instruction: attention_simt.cu, attention_mma.cu, attention_wide.cu, attention_wgmma.cu.
#include "attention.h"

#include "../relative_position.h"
#include "ops.h"
#include "plain_vector.h"

namespace kotoba::cuda {
namespace {

// How far from the last bucket on a side towards the query it starts: keys beyond share one bias.
int far_distance(const Attention& how, int side) {
  const int64_t most = how.max_distance;
  const auto bucket = [&](int64_t distance) {
    return relative_bucket(side * distance, static_cast<int>(how.bias_table.rows()), how.bidirectional, most);
  };
  int64_t distance = 0;
  for (int64_t end = most; distance < end;) {
    const int64_t middle = (distance + end) / 2;
    if (bucket(middle) == bucket(most))
      end = middle;
    else
      distance = middle + 1;
  }
  return static_cast<int>(distance);
}

// Whether every head's columns in every row start at multiples of 16 bytes and fill such.
bool is_wide(const TensorView& x, int64_t head_dim) {
  constexpr int64_t kBytes = 16;
  const int64_t bytes = info(x.dtype).bytes;
  return reinterpret_cast<uintptr_t>(x.data) % kBytes == 0 && x.row_stride * bytes % kBytes == 0 &&
         head_dim * bytes % kBytes == 0;
}

}  // namespace

// out, q: [batch * queries, heads * head_dim]; k, v: [batch * keys, heads * head_dim], all of one activation
// dtype; distance_buckets: the bucket of every key - query from -max_distance to max_distance, if there is a
// bias. `out` may alias `q`.
void attention(const Context& context, TensorView out, TensorView q, TensorView k, TensorView v,
               const Attention& how, const int32_t* distance_buckets) {
  const int64_t head_dim = q.cols() / how.heads;
  if (out.elements() == 0 || k.rows() == 0) return;
  require(head_dim <= kMostHeadColumns, "attention: heads of ", head_dim, " columns are more than ",
          kMostHeadColumns, ", the most that ", kDeviceName, " can do");
  const PlainVector bias(context, how.bias_table);
  const bool biased = !how.bias_table.empty();
  const AttentionProblem problem = {
      .dtype = q.dtype,
      .out = out.data,
      .q = q.data,
      .k = k.data,
      .v = v.data,
      .out_stride = out.row_stride,
      .q_stride = q.row_stride,
      .k_stride = k.row_stride,
      .v_stride = v.row_stride,
      .queries = q.rows() / how.batch,
      .keys = k.rows() / how.batch,
      .heads = how.heads,
      .batch = how.batch,
      .head_dim = static_cast<int>(head_dim),
      .scale = how.scale,
      .causal = how.causal,
      .key_mask = how.key_mask.as<int32_t>(),
      .bias_table = bias.get(),
      .distance_buckets = distance_buckets,
      .max_distance = biased ? static_cast<int>(how.max_distance) : 0,
      .far_left = biased ? far_distance(how, -1) : 0,
      .far_right = biased ? far_distance(how, 1) : 0,
      .wide_loads = is_wide(q, head_dim) && is_wide(k, head_dim) && is_wide(v, head_dim),
      .wide_stores = is_wide(out, head_dim),
      .arch = context.arch,
      .multiprocessors = context.multiprocessors};
  run_variant<AttentionProblem>(context, "attention",
                                {attention_wgmma_variants(), attention_mma_variants(),
                                 attention_wide_variants(), attention_simt_variants()},
                                problem);
}

}  // namespace kotoba::cuda
