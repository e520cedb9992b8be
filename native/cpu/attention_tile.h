// The pieces of attention that work on tiles. Everything is transposed, [keys, queries] and [headDim,
// queries]: a lane is a query, so that softmax needs no sum across lanes, and K and V are read as they lie,
// one number broadcast to all queries. A panel is kPanel queries; its pitch is kPanel however few are used.
#pragma once

#include "simd.h"

namespace kotoba::cpu::KOTOBA_ISA {

// kRows x kVectors accumulators, kVectors queries and a broadcast fill the register file.
#if defined(__AVX512F__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 3;
constexpr int kPanel = kVectors * kLanes;
constexpr int kKeyBlock = 64;  // keys per tile: a tile of scores stays in L1

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

KOTOBA_INLINE F4 load4(const float* p) {
  F4 a;
  memcpy(&a, p, sizeof a);
  return a;
}

KOTOBA_INLINE void transpose_4x4(float* dst, int64_t dst_pitch, const float* src, int64_t src_pitch) {
  const F4 a = load4(src), b = load4(src + src_pitch), c = load4(src + 2 * src_pitch),
           d = load4(src + 3 * src_pitch);
  const F4 ab0 = __builtin_shuffle(a, b, I4{0, 4, 1, 5}), ab1 = __builtin_shuffle(a, b, I4{2, 6, 3, 7});
  const F4 cd0 = __builtin_shuffle(c, d, I4{0, 4, 1, 5}), cd1 = __builtin_shuffle(c, d, I4{2, 6, 3, 7});
  const F4 rows[4] = {
      __builtin_shuffle(ab0, cd0, I4{0, 1, 4, 5}), __builtin_shuffle(ab0, cd0, I4{2, 3, 6, 7}),
      __builtin_shuffle(ab1, cd1, I4{0, 1, 4, 5}), __builtin_shuffle(ab1, cd1, I4{2, 3, 6, 7})};
  for (int i = 0; i < 4; ++i) memcpy(dst + i * dst_pitch, &rows[i], sizeof rows[i]);
}

// panel[d, i] = rows[i, d]. Rows lie apart in memory, so each four are finished before the next.
static void load_transposed(float* panel, const float* rows, int64_t row_stride, int64_t count,
                            int64_t head_dim) {
  const int64_t count4 = count / 4 * 4, dim4 = head_dim / 4 * 4;
  for (int64_t i = 0; i < count4; i += 4)
    for (int64_t d = 0; d < dim4; d += 4)
      transpose_4x4(panel + d * kPanel + i, kPanel, rows + i * row_stride + d, row_stride);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = i < count4 ? dim4 : 0; d < head_dim; ++d)
      panel[d * kPanel + i] = rows[i * row_stride + d];
}

// rows[i, d] = panel[d, i]
static void store_transposed(float* rows, int64_t row_stride, const float* panel, int64_t count,
                             int64_t head_dim) {
  const int64_t count4 = count / 4 * 4, dim4 = head_dim / 4 * 4;
  for (int64_t i = 0; i < count4; i += 4)
    for (int64_t d = 0; d < dim4; d += 4)
      transpose_4x4(rows + i * row_stride + d, row_stride, panel + d * kPanel + i, kPanel);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = i < count4 ? dim4 : 0; d < head_dim; ++d)
      rows[i * row_stride + d] = panel[d * kPanel + i];
}

// scores[j, i] = sum_d k[j, d] * q[d, i] for kRows keys and V vectors of queries.
template <int V>
KOTOBA_INLINE void score_rows(float* scores, const float* k, int64_t head_dim, const float* q) {
  VF sum[kRows][V];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = v_zero();
  for (int64_t d = 0; d < head_dim; ++d) {
    VF query[V];
    for (int v = 0; v < V; ++v) query[v] = v_load(q + d * kPanel + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const VF key = v_set(k[r * head_dim + d]);
      for (int v = 0; v < V; ++v) sum[r][v] = v_fma(key, query[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < V; ++v) v_store(scores + r * kPanel + v * kLanes, sum[r][v]);
}

// mixed[d, i] = mixed[d, i] * keep[i] + sum_j values[j, d] * weights[j, i] for kRows columns d.
template <int V>
KOTOBA_INLINE void mix_rows(float* mixed, const float* keep, const float* values, int64_t pitch,
                            const float* weights, int64_t keys) {
  VF sum[kRows][V];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = v_zero();
  for (int64_t j = 0; j < keys; ++j) {
    VF weight[V];
    for (int v = 0; v < V; ++v) weight[v] = v_load(weights + j * kPanel + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const VF value = v_set(values[j * pitch + r]);
      for (int v = 0; v < V; ++v) sum[r][v] = v_fma(value, weight[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < V; ++v) {
      float* at = mixed + r * kPanel + v * kLanes;
      v_store(at, v_fma(v_load(at), v_load(keep + v * kLanes), sum[r][v]));
    }
}

// What changes the scores of one tile before softmax.
struct ScoreRules {
  const float* bias;    // bias[i - j] for lane i of the panel and key j of the tile; or null
  const int32_t* mask;  // 0 = hidden, for each key of the tile; or null
  bool causal;          // hide key j from lanes i < first_key - first_query + j
  int64_t first_key_minus_first_query;
};

KOTOBA_INLINE VF lane_numbers(int v) {
  static const float kNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return v_add(v_load(kNumbers), v_set(static_cast<float>(v * kLanes)));
}

// A masked key has the lowest finite score, so that a query with no other keys averages them all; a key that
// is not there yet for causal attention has none.
template <int V>
KOTOBA_INLINE void apply_rules(float* scores, int64_t keys, const ScoreRules& rules) {
  for (int64_t j = 0; j < keys; ++j) {
    const bool hidden = rules.mask && rules.mask[j] == 0;
    const VF first_seeing = v_set(static_cast<float>(rules.first_key_minus_first_query + j));
    for (int v = 0; v < V; ++v) {
      float* at = scores + j * kPanel + v * kLanes;
      VF s = v_load(at);
      if (rules.bias) s = v_add(s, v_load(rules.bias + v * kLanes - j));
      if (hidden) s = v_set(-__FLT_MAX__);
      if (rules.causal) s = v_select_less(lane_numbers(v), first_seeing, v_set(-__builtin_inff()), s);
      v_store(at, s);
    }
  }
}

// One step of softmax over more and more keys: scores become weights exp(score - max) with the maximum so
// far, `max` and `sum` move on, and `keep` is what the earlier weights must be multiplied by.
template <int V>
KOTOBA_INLINE void softmax_step(float* scores, int64_t keys, float* max, float* sum, float* keep) {
  VF top[V], added[V];
  for (int v = 0; v < V; ++v) top[v] = v_load(max + v * kLanes);
  for (int64_t j = 0; j < keys; ++j)
    for (int v = 0; v < V; ++v) top[v] = v_max(top[v], v_load(scores + j * kPanel + v * kLanes));
  for (int v = 0; v < V; ++v) added[v] = v_zero();
  for (int64_t j = 0; j < keys; ++j)
    for (int v = 0; v < V; ++v) {
      float* at = scores + j * kPanel + v * kLanes;
      const VF weight = v_exp(v_sub(v_load(at), top[v]));
      v_store(at, weight);
      added[v] = v_add(added[v], weight);
    }
  for (int v = 0; v < V; ++v) {
    const VF factor = v_exp(v_sub(v_load(max + v * kLanes), top[v]));
    v_store(keep + v * kLanes, factor);
    v_store(max + v * kLanes, top[v]);
    v_store(sum + v * kLanes, v_fma(v_load(sum + v * kLanes), factor, added[v]));
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
