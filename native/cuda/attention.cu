// out = softmax(scale * q kᵀ + bias) v for each sequence and head in FP32, without ever holding the [queries,
// keys] scores: keys come in tiles and softmax is carried along (arXiv:2205.14135).
#include "launch.h"
#include "plain_vector.h"
#include "reduce.cuh"
#include "variant.h"

namespace kotoba::cuda {
namespace {

constexpr int kWarps = 4;  // to a block
constexpr int kQueriesPerWarp = 4;
constexpr int kQueries = kWarps * kQueriesPerWarp;
constexpr int kKeys = 32;  // to a tile: one for each lane
constexpr float kMasked =
    -3.402823466e+38f;  // the lowest float: a query with no other keys averages them all

struct AttentionProblem {
  float* out;
  const float *q, *k, *v;
  int64_t out_stride, q_stride, k_stride, v_stride;
  int64_t queries, keys, heads, batch;
  int head_dim;
  float scale;
  bool causal;
  const int32_t* key_mask;          // [batch, keys] or null
  Vector bias_table;                // [buckets, heads] or absent
  const int32_t* distance_buckets;  // of key - query, from -max_distance to max_distance
  int64_t max_distance;
};

// What the tile's rules make of a score. Absent keys and those that causal attention does not see yet have
// none.
__device__ __forceinline__ float ruled_score(const AttentionProblem& p, float score, int64_t sequence,
                                             int64_t head, int64_t query, int64_t key) {
  if (key >= p.keys || (p.causal && key > query)) return -INFINITY;
  if (p.bias_table.data) {
    int64_t distance = key - query;
    distance = distance < -p.max_distance  ? -p.max_distance
               : distance > p.max_distance ? p.max_distance
                                           : distance;
    score += load(p.bias_table, p.distance_buckets[distance + p.max_distance] * p.heads + head);
  }
  if (p.key_mask && p.key_mask[sequence * p.keys + key] == 0) score = kMasked;
  return score;
}

// A block makes kQueries queries of one head. K and V tiles share memory, since V is needed when K is not.
// kSlices: of 32 columns that make up a head.
template <int kSlices>
__global__ void __launch_bounds__(32 * kWarps) attention_simt_16x32(AttentionProblem p) {
  KOTOBA_DYNAMIC_SHARED(shared);
  const int pitch = p.head_dim + 1;  // lanes read different rows of a column: keeps them on different banks
  float* q_rows = reinterpret_cast<float*>(shared);  // [kQueries, head_dim], scaled
  float* weights = q_rows + kQueries * p.head_dim;   // [kQueries, kKeys] of the tile
  float* tile = weights + kQueries * kKeys;          // [kKeys, pitch]
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t query_blocks = (p.queries + kQueries - 1) / kQueries;
  const int64_t first_query = blockIdx.x % query_blocks * kQueries;
  const int64_t head = blockIdx.x / query_blocks % p.heads, sequence = blockIdx.x / query_blocks / p.heads;
  const int64_t column = head * p.head_dim;

  for (int i = thread; i < kQueries * p.head_dim; i += 32 * kWarps) {
    const int64_t query = first_query + i / p.head_dim;
    const float* row = p.q + (sequence * p.queries + query) * p.q_stride + column;
    q_rows[i] = query < p.queries ? row[i % p.head_dim] * p.scale : 0;
  }
  const auto load_tile = [&](const float* x, int64_t stride, int64_t first_key) {
    for (int i = thread; i < kKeys * p.head_dim; i += 32 * kWarps) {
      const int64_t key = first_key + i / p.head_dim;
      const float* row = x + (sequence * p.keys + key) * stride + column;
      tile[i / p.head_dim * pitch + i % p.head_dim] = key < p.keys ? row[i % p.head_dim] : 0;
    }
  };

  float mixed[kQueriesPerWarp][kSlices] = {};
  float top[kQueriesPerWarp], sum[kQueriesPerWarp] = {};
  for (float& t : top) t = -INFINITY;
  const int64_t seen = p.causal && first_query + kQueries < p.keys ? first_query + kQueries : p.keys;
  for (int64_t first_key = 0; first_key < seen; first_key += kKeys) {
    // Scores: a lane has one key.
    __syncthreads();
    load_tile(p.k, p.k_stride, first_key);
    __syncthreads();
    for (int r = 0; r < kQueriesPerWarp; ++r) {
      const float* q = q_rows + (warp * kQueriesPerWarp + r) * p.head_dim;
      float score = 0;
      for (int d = 0; d < p.head_dim; ++d) score = fmaf(q[d], tile[lane * pitch + d], score);
      const int64_t query = first_query + warp * kQueriesPerWarp + r;
      score = ruled_score(p, score, sequence, head, query, first_key + lane);
      // Softmax step: `keep` is what the earlier weights must be multiplied by. The first key is seen by all.
      const float highest = fmaxf(top[r], warp_max(score)), keep = expf(top[r] - highest);
      const float weight = expf(score - highest);
      weights[(warp * kQueriesPerWarp + r) * kKeys + lane] = weight;
      sum[r] = fmaf(sum[r], keep, warp_sum(weight));
      top[r] = highest;
      for (int s = 0; s < kSlices; ++s) mixed[r][s] *= keep;
    }
    // Values: a lane has some columns.
    __syncthreads();
    load_tile(p.v, p.v_stride, first_key);
    __syncthreads();
    for (int r = 0; r < kQueriesPerWarp; ++r)
      for (int j = 0; j < kKeys; ++j) {
        const float w = weights[(warp * kQueriesPerWarp + r) * kKeys + j];
        for (int s = 0; s < kSlices; ++s)
          if (s * 32 + lane < p.head_dim) mixed[r][s] = fmaf(w, tile[j * pitch + s * 32 + lane], mixed[r][s]);
      }
  }
  for (int r = 0; r < kQueriesPerWarp; ++r) {
    const int64_t query = first_query + warp * kQueriesPerWarp + r;
    if (query >= p.queries) continue;
    float* row = p.out + (sequence * p.queries + query) * p.out_stride + column;
    for (int s = 0; s < kSlices; ++s)
      if (s * 32 + lane < p.head_dim) row[s * 32 + lane] = mixed[r][s] / sum[r];
  }
}

constexpr int kMostSlices = 16;

template <int kSlices>
void run_simt_as(const Context& context, const AttentionProblem& p) {
  const int64_t blocks = p.batch * p.heads * ceil_div(p.queries, kQueries);
  const int64_t floats = kQueries * (p.head_dim + kKeys) + kKeys * (p.head_dim + 1);
  launch(context.stream,
         {"attention_simt_16x32", blocks, 32 * kWarps, floats * static_cast<int64_t>(sizeof(float))},
         attention_simt_16x32<kSlices>, p);
}

void run_simt(const Context& context, const AttentionProblem& p) {
  const int slices = static_cast<int>(ceil_div(p.head_dim, 32));
  if (slices <= 1) return run_simt_as<1>(context, p);
  if (slices <= 2) return run_simt_as<2>(context, p);
  if (slices <= 4) return run_simt_as<4>(context, p);
  if (slices <= 8) return run_simt_as<8>(context, p);
  run_simt_as<kMostSlices>(context, p);
}

constexpr Variant<AttentionProblem> kVariants[] = {
    {"simt_16x32", [](const AttentionProblem&) { return true; }, run_simt},
};

}  // namespace

// q, out: F32 [batch * queries, heads * head_dim]; k, v: F32 [batch * keys, heads * head_dim];
// distance_buckets: the bucket of every key - query from -max_distance to max_distance, if there is a bias.
// `out` may alias `q`.
void attention(const Context& context, TensorView out, TensorView q, TensorView k, TensorView v,
               const Attention& how, const int32_t* distance_buckets) {
  const int64_t head_dim = q.cols() / how.heads;
  if (out.elements() == 0 || k.rows() == 0) return;
  require(head_dim <= 32 * kMostSlices, "attention: heads of ", head_dim, " columns are more than ",
          32 * kMostSlices, ", the most that ", kDeviceName, " can do");
  const PlainVector bias(context, how.bias_table);
  const AttentionProblem problem = {.out = out.as<float>(),
                                    .q = q.as<float>(),
                                    .k = k.as<float>(),
                                    .v = v.as<float>(),
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
                                    .max_distance = how.max_distance};
  run_variant(context, "attention", kVariants, problem);
}

}  // namespace kotoba::cuda
