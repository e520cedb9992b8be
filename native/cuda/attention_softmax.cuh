// What happens to scores on their way from one matrix product to the next, in the registers of a warp: the
// rules (scale, bias, masks) and a step of the softmax that is carried along (arXiv:2205.14135).
//
// A warp holds 16 queries by 8 · kTiles keys as the tensor cores leave them: lane 4g + t has, in tile j, the
// rows g (numbers 0 and 1) and g + 8 (2 and 3), the columns 8j + 2t and 8j + 2t + 1. Scores are in powers of
// two: times log2 e, so that exp2 makes their weights.
#pragma once

#include <algorithm>

#include "attention.h"
#include "launch.h"
#include "reduce.cuh"

namespace kotoba::cuda {

constexpr float kLog2e = 1.4426950408889634f;

// One block's queries of one head. Neighbouring blocks read the same keys.
struct Place {
  int first_query, queries;  // that exist, at most kQueries
  int head, sequence;
  int keys;  // that one of them sees: the first ones
};

template <int kQueries>
__device__ __forceinline__ Place place_at(const AttentionProblem& p, int index) {
  const int queries = static_cast<int>(p.queries), keys = static_cast<int>(p.keys);
  const int blocks = (queries + kQueries - 1) / kQueries, rest = index / blocks, block = index % blocks;
  const int heads = static_cast<int>(p.heads);
  const int first = (p.causal ? blocks - 1 - block : block) * kQueries;  // the longest first
  return {first, std::min(queries - first, kQueries), rest % heads, rest / heads,
          p.causal ? std::min(keys, first + kQueries) : keys};
}

// ---- the relative bias of one head: it depends on key - query alone, so a vector in shared memory holds it

struct HeadBias {
  const float* vector;  // by key - query + origin; null without a bias
  int origin, far_left, far_right;

  __device__ __forceinline__ float far(bool right) const {
    return vector[origin + (right ? far_right : -far_left)];
  }
};

// Distances beyond the far ones that tiles near them reach: those of `rows` queries and `keys` keys.
constexpr int bias_margin(int rows, int keys) { return rows + keys; }

inline int64_t bias_floats(const AttentionProblem& p, int rows, int keys) {
  return p.bias_table.data ? p.far_left + p.far_right + 2 * bias_margin(rows, keys) + 1 : 0;
}

__device__ __forceinline__ HeadBias bias_at(const AttentionProblem& p, const float* vector, int margin) {
  return {p.bias_table.data ? vector : nullptr, p.far_left + margin, p.far_left, p.far_right};
}

// By threads 0 to kThreads - 1, which then have to meet their readers. vector: bias_floats() long.
template <int kThreads>
__device__ __forceinline__ void build_bias(float* vector, const AttentionProblem& p, int head, int margin,
                                           int thread) {
  if (!p.bias_table.data) return;
  const int origin = p.far_left + margin, length = origin + p.far_right + margin + 1;
  const int most = p.max_distance, heads = static_cast<int>(p.heads);
  KOTOBA_UNROLL(unroll 2)
  for (int i = thread; i < length; i += kThreads) {
    const int distance = i - origin;
    const int known = distance < -most ? -most : distance > most ? most : distance;
    vector[i] = load(p.bias_table, p.distance_buckets[known + most] * heads + head) * kLog2e;
  }
}

// ---- rules

// The keys of a tile that are not masked, a bit each.
template <int kKeys>
struct SeenKeys {
  uint32_t words[kKeys / 32];

  // mask: of the tile's first key on; `present` of its keys exist.
  __device__ __forceinline__ void load(const int32_t* mask, int present) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kKeys / 32; ++i) {
      const int key = 32 * i + lane;
      words[i] = mask ? __ballot_sync(kWholeWarp, key >= present || mask[key] != 0) : kWholeWarp;
    }
  }
  __device__ __forceinline__ bool all() const {
    uint32_t seen = kWholeWarp;
    KOTOBA_UNROLL(unroll)
    for (const uint32_t word : words) seen &= word;
    return seen == kWholeWarp;
  }
};

// Where a warp's 16 rows of a tile are.
struct TilePlace {
  int first_query, first_key;
};

// What remains to be done to scores: score * factor + offset.
struct Linear {
  float factor, offset;
};

// scale: with log2 e.
template <int kTiles>
__device__ __forceinline__ Linear apply_rules(float (&scores)[kTiles][4], const AttentionProblem& p,
                                              const HeadBias& bias, const SeenKeys<8 * kTiles>& seen,
                                              const TilePlace& place, float scale) {
  constexpr int kKeys = 8 * kTiles, kRows = 16;
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, column = lane % 4 * 2;
  Linear rest = {scale, 0};
  bool near = false;
  const int distance = place.first_key - place.first_query;
  if (bias.vector) {
    const bool right = distance - (kRows - 1) >= bias.far_right;
    near = !right && distance + kKeys - 1 > -bias.far_left;
    rest.offset = near ? 0 : bias.far(right);
  }
  // The last column of its tile that each of the lane's two rows may see, from the lane's first one on.
  const int last_key = static_cast<int>(p.keys) - 1 - place.first_key;
  const bool all_seen = seen.all();
  const bool whole = last_key >= kKeys - 1 && !(p.causal && distance + kKeys - 1 > 0);
  if (whole && all_seen && !near) return rest;

  const float* vector = bias.vector + (near ? bias.origin + distance + column - row : 0);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 4 * kTiles; ++i) {
    const int j = i / 4, r = i % 4;
    const float added = near ? vector[8 * j - 8 * (r / 2) + r % 2] : rest.offset;
    scores[j][r] = fmaf(scores[j][r], scale, added);
  }
  if (!all_seen) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4 * kTiles; ++i) {
      const int j = i / 4, r = i % 4;
      if ((seen.words[j / 4] >> column >> (8 * (j % 4) + r % 2) & 1) == 0) scores[j][r] = kMaskedScore;
    }
  }
  if (!whole) {
    const int diagonal = row - distance;
    const int limits[2] = {(p.causal ? std::min(last_key, diagonal) : last_key) - column,
                           (p.causal ? std::min(last_key, diagonal + 8) : last_key) - column};
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4 * kTiles; ++i) {
      const int j = i / 4, r = i % 4;
      if (8 * j + r % 2 > limits[r / 2]) scores[j][r] = -INFINITY;
    }
  }
  return {1, 0};
}

// ---- softmax

// Of the two rows of a lane; sums are of the lane's own columns until the end.
struct RowSums {
  float top[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};

  __device__ __forceinline__ float total(int half) const {
    float all = sum[half] + __shfl_xor_sync(kWholeWarp, sum[half], 1);
    return all + __shfl_xor_sync(kWholeWarp, all, 2);
  }
};

// Scores become weights; what came before has to be multiplied by keep[0] and keep[1].
template <int kTiles>
__device__ __forceinline__ void softmax_step(float (&scores)[kTiles][4], const Linear& rest, RowSums& rows,
                                             float (&keep)[2]) {
  KOTOBA_UNROLL(unroll)
  for (int h = 0; h < 2; ++h) {
    float highest = -INFINITY;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kTiles; ++j) highest = fmaxf(highest, fmaxf(scores[j][2 * h], scores[j][2 * h + 1]));
    highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 2));
    const float top = fmaxf(rows.top[h], fmaf(highest, rest.factor, rest.offset));
    const float base = top == -INFINITY ? 0 : top;  // nothing was seen yet: all weights are 0
    keep[h] = ptx::exp2_approx(rows.top[h] - base);
    rows.top[h] = top;
    const float shift = rest.offset - base;
    float sum = 0;
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 2 * kTiles; ++i) {
      float& score = scores[i / 2][2 * h + i % 2];
      score = ptx::exp2_approx(fmaf(score, rest.factor, shift));
      sum += score;
    }
    rows.sum[h] = fmaf(rows.sum[h], keep[h], sum);
  }
}

}  // namespace kotoba::cuda
