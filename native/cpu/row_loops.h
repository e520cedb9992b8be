// Loops over the rows of tensors and over the vectors of a row. For *_isa.cpp files only.
#pragma once

#include "isa.h"
#include "simd.h"
#include "thread_pool.h"

namespace kotoba::cpu::KOTOBA_ISA {

constexpr int64_t kChunkElements = 16384;  // 64 KB of rows a chunk: some microseconds

// Two vectors that are summed in one pass, and their sums.
struct VectorPair {
  VF first, second;
};
struct FloatPair {
  float first, second;
};
KOTOBA_INLINE VectorPair v_add(const VectorPair& a, const VectorPair& b) {
  return {v_add(a.first, b.first), v_add(a.second, b.second)};
}
KOTOBA_INLINE FloatPair v_sum(const VectorPair& a) { return {v_sum(a.first), v_sum(a.second)}; }

// Sum of f(vector) over a row; f also takes the last, partly zero vector, and may give a
// VectorPair. Four vectors of partial sums keep the error of a sum over some thousand columns near 1e-7.
template <typename F>
KOTOBA_INLINE auto sum_row(const float* x, int64_t cols, const F& f) {
  decltype(f(v_zero(), 0)) s0{}, s1{}, s2{}, s3{};
  int64_t c = 0;
  for (; c + 4 * kLanes <= cols; c += 4 * kLanes) {
    s0 = v_add(s0, f(v_load(x + c), kLanes));
    s1 = v_add(s1, f(v_load(x + c + kLanes), kLanes));
    s2 = v_add(s2, f(v_load(x + c + 2 * kLanes), kLanes));
    s3 = v_add(s3, f(v_load(x + c + 3 * kLanes), kLanes));
  }
  for (; c < cols; c += kLanes) {
    const int64_t n = cols - c < kLanes ? cols - c : kLanes;
    s0 = v_add(s0, f(n == kLanes ? v_load(x + c) : v_load_partial(x + c, n), n));
  }
  return v_sum(v_add(v_add(s0, s1), v_add(s2, s3)));
}

// out[c] = f(load) for every vector c of a row; load(p) is the same vector of any other row p.
template <typename F>
KOTOBA_INLINE void map_row(float* out, int64_t cols, const F& f) {
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes)
    v_store(out + c, f([c](const float* p) __attribute__((always_inline)) { return v_load(p + c); }));
  if (const int64_t n = cols - c; n > 0)
    v_store_partial(
        out + c,
        f([ c, n ](const float* p) __attribute__((always_inline)) { return v_load_partial(p + c, n); }), n);
}

// f(r) for all rows, several to a chunk.
template <typename F>
KOTOBA_INLINE void for_each_row(const Context& context, int64_t rows, int64_t cols, const F& f) {
  const int64_t step = cols < kChunkElements ? kChunkElements / cols : 1;
  context.pool->run(context.threads, (rows + step - 1) / step, [&](int64_t chunk) {
    if (is_cancelled(context)) return;
    const int64_t end = (chunk + 1) * step < rows ? (chunk + 1) * step : rows;
    for (int64_t r = chunk * step; r < end; ++r) f(r);
  });
}

}  // namespace kotoba::cpu::KOTOBA_ISA
