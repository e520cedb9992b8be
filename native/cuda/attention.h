// What the kernels of attention need to know, and where they are: attention.cu chooses one.
#pragma once

#include "launch.h"
#include "variant.h"
#include "weight.cuh"

namespace kotoba::cuda {

// The score that a masked key gets, the lowest float: a query that has no other keys averages them all.
constexpr float kMaskedScore = -3.402823466e+38f;
constexpr int kMostHeadColumns = 512;

struct AttentionProblem {
  DType dtype;  // of out, q, k and v: F32, F16 or BF16
  std::byte* out;
  const std::byte *q, *k, *v;
  int64_t out_stride, q_stride, k_stride, v_stride;  // numbers from a row to the next
  int64_t queries, keys, heads, batch;
  int head_dim;
  float scale;
  bool causal;
  const int32_t* key_mask;          // [batch, keys] or null
  Vector bias_table;                // [buckets, heads] or absent
  const int32_t* distance_buckets;  // of key - query, from -max_distance to max_distance
  int max_distance;
  int far_left, far_right;       // distances ≤ -far_left share a bucket, and so do those ≥ far_right
  bool wide_loads, wide_stores;  // 16 bytes at once: every head's columns start at multiples of that
  int arch;                      // as in Context
  int multiprocessors;

  bool is_16_bit() const { return dtype != DType::F32; }
};

// Pieces of work of `queries` of one head.
inline int64_t place_count(const AttentionProblem& p, int queries) {
  return p.batch * p.heads * ceil_div(p.queries, queries);
}

// Microseconds for blocks of `queries` on heads of `columns`, where a multiprocessor does `rate` FLOP in one.
inline double estimated_time(const AttentionProblem& p, int queries, int columns, double rate) {
  constexpr double kStart = 2;
  const double keys = static_cast<double>(p.keys) * (p.causal ? 0.5 : 1);
  const int64_t waves = ceil_div(place_count(p, queries), p.multiprocessors);
  return static_cast<double>(waves) * (kStart + 4.0 * queries * keys * columns / rate);
}

// Kernels by instruction (attention_simt.cu, attention_mma.cu, attention_wide.cu, attention_wgmma.cu); costs
// are estimated microseconds.
std::span<const Variant<AttentionProblem>> attention_simt_variants();
std::span<const Variant<AttentionProblem>> attention_mma_variants();
std::span<const Variant<AttentionProblem>> attention_wide_variants();
std::span<const Variant<AttentionProblem>> attention_wgmma_variants();

}  // namespace kotoba::cuda
