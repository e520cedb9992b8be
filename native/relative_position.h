// T5's buckets of relative positions (arXiv:1910.10683 §2.1): half of them for single distances, the other
// half for ranges that widen logarithmically up to max_distance, beyond which all share the last.
#pragma once

#include <cmath>
#include <cstdint>

#include "float_formats.h"

namespace kotoba {

// The bucket of key - query among `buckets`, at least 4. Bidirectional attention gives the upper half to keys
// on the right; otherwise those share bucket 0 with the query itself. The logarithm is a float's, as in the
// reference, since its rounding decides at the borders of the ranges.
KOTOBA_HD static inline int relative_bucket(int64_t key_minus_query, int buckets, bool bidirectional,
                                            int64_t max_distance) {
  const int own = bidirectional ? buckets / 2 : buckets;
  const int first = bidirectional && key_minus_query > 0 ? own : 0;
  int64_t distance = -key_minus_query;
  if (distance < 0) distance = bidirectional ? -distance : 0;

  const int exact = own / 2;
  if (distance < exact) return first + static_cast<int>(distance);
  const float span = static_cast<float>(log(static_cast<double>(max_distance) / exact));
  const float position = logf(static_cast<float>(distance) / static_cast<float>(exact)) / span;
  const int bucket = exact + static_cast<int>(position * static_cast<float>(own - exact));
  return first + (bucket < own ? bucket : own - 1);
}

}  // namespace kotoba
