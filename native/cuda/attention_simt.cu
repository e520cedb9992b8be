// Attention in FP32 arithmetic for every problem: the fallback, and the judge of faster kernels. Keys come in
// tiles and softmax is carried along (arXiv:2205.14135).
#include "attention.h"
#include "launch.h"
#include "numbers.cuh"
#include "reduce.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kWarps = 4;  // to a block
constexpr int kQueriesPerWarp = 4;
constexpr int kQueries = kWarps * kQueriesPerWarp;
constexpr int kKeys = 32;  // to a tile: one for each lane

// What the tile's rules make of a score. Absent keys and those that causal attention does not see yet have
// none.
__device__ __forceinline__ float ruled_score(const AttentionProblem& p, float score, int64_t sequence,
                                             int64_t head, int64_t query, int64_t key) {
  if (key >= p.keys || (p.causal && key > query)) return -INFINITY;
  if (p.bias_table.data) {
    const int64_t most = p.max_distance;
    int64_t distance = key - query;
    distance = distance < -most ? -most : distance > most ? most : distance;
    score += load(p.bias_table, p.distance_buckets[distance + most] * p.heads + head);
  }
  if (p.key_mask && p.key_mask[sequence * p.keys + key] == 0) score = kMaskedScore;
  return score;
}

// A block makes kQueries queries of one head. K and V tiles share memory, since V is needed when K is not.
// kSlices: of 32 columns that make up a head.
template <typename Number, int kSlices>
__global__ void __launch_bounds__(32 * kWarps, 4) attention_simt_16x32(AttentionProblem p) {
  using Stored = typename Number::Stored;
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
    const Stored* row =
        reinterpret_cast<const Stored*>(p.q) + (sequence * p.queries + query) * p.q_stride + column;
    q_rows[i] = query < p.queries ? Number::decode(row[i % p.head_dim]) * p.scale : 0;
  }
  const auto load_tile = [&](const std::byte* x, int64_t stride, int64_t first_key) {
    for (int i = thread; i < kKeys * p.head_dim; i += 32 * kWarps) {
      const int64_t key = first_key + i / p.head_dim;
      const Stored* row = reinterpret_cast<const Stored*>(x) + (sequence * p.keys + key) * stride + column;
      tile[i / p.head_dim * pitch + i % p.head_dim] = key < p.keys ? Number::decode(row[i % p.head_dim]) : 0;
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
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kQueriesPerWarp; ++r) {
      const float* q = q_rows + (warp * kQueriesPerWarp + r) * p.head_dim;
      float score = 0;
      for (int d = 0; d < p.head_dim; ++d) score = fmaf(q[d], tile[lane * pitch + d], score);
      const int64_t query = first_query + warp * kQueriesPerWarp + r;
      score = ruled_score(p, score, sequence, head, query, first_key + lane);
      // Softmax step: `keep` is what the earlier weights must be multiplied by. While all scores are
      // -infinity, all weights are 0.
      const float highest = fmaxf(top[r], warp_max(score)), base = highest == -INFINITY ? 0 : highest;
      const float keep = expf(top[r] - base), weight = expf(score - base);
      weights[(warp * kQueriesPerWarp + r) * kKeys + lane] = weight;
      sum[r] = fmaf(sum[r], keep, warp_sum(weight));
      top[r] = highest;
      for (int s = 0; s < kSlices; ++s) mixed[r][s] *= keep;
    }
    // Values: a lane has some columns.
    __syncthreads();
    load_tile(p.v, p.v_stride, first_key);
    __syncthreads();
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kQueriesPerWarp; ++r)
      for (int j = 0; j < kKeys; ++j) {
        const float w = weights[(warp * kQueriesPerWarp + r) * kKeys + j];
        for (int s = 0; s < kSlices; ++s)
          if (s * 32 + lane < p.head_dim) mixed[r][s] = fmaf(w, tile[j * pitch + s * 32 + lane], mixed[r][s]);
      }
  }
  KOTOBA_UNROLL(unroll)
  for (int r = 0; r < kQueriesPerWarp; ++r) {
    const int64_t query = first_query + warp * kQueriesPerWarp + r;
    if (query >= p.queries) continue;
    Stored* row = reinterpret_cast<Stored*>(p.out) + (sequence * p.queries + query) * p.out_stride + column;
    for (int s = 0; s < kSlices; ++s)
      if (s * 32 + lane < p.head_dim) row[s * 32 + lane] = Number::encode(mixed[r][s] / sum[r]);
  }
}

template <int kSlices>
void run_as(const Context& context, const AttentionProblem& p) {
  const int64_t blocks = p.batch * p.heads * ceil_div(p.queries, kQueries);
  const int64_t floats = kQueries * (p.head_dim + kKeys) + kKeys * (p.head_dim + 1);
  dispatch_activation(p.dtype, "attention", [&]<typename Number>() {
    launch(context.stream,
           {"attention_simt_16x32", blocks, 32 * kWarps, floats * static_cast<int64_t>(sizeof(float))},
           attention_simt_16x32<Number, kSlices>, p);
  });
}

void run(const Context& context, const AttentionProblem& p) {
  const int slices = static_cast<int>(ceil_div(p.head_dim, 32));
  if (slices <= 2) return run_as<2>(context, p);
  if (slices <= 4) return run_as<4>(context, p);
  run_as<kMostHeadColumns / 32>(context, p);
}

// Beyond every other estimate: it runs where nothing else can.
constexpr Variant<AttentionProblem> kVariants[] = {
    {"simt_16x32", [](const AttentionProblem&) { return 1e30; }, run},
};

}  // namespace

std::span<const Variant<AttentionProblem>> attention_simt_variants() { return kVariants; }

}  // namespace kotoba::cuda
