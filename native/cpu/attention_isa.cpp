// out = softmax(scale * q kᵀ + bias) v for each sequence and head, exactly in FP32, without ever holding the
// [queries, keys] scores: keys come in tiles and softmax is carried along (arXiv:2205.14135).
//
// A chunk of work is some panels of queries of one head. It copies each tile of K and V next to each other
// (rows of a fused qkv lie pages apart) and runs all its panels over the copy. The result of a query does not
// depend on how queries are grouped, hence not on the number of threads.
#include "../relative_position.h"
#include "attention_tile.h"
#include "decode.h"
#include "isa.h"
#include "thread_pool.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

struct Problem {
  const Attention& options;
  TensorView out, q, k, v;
  int64_t queries, keys, head_dim;
  int64_t padded_dim;          // head_dim up to whole kRows
  int64_t panels;              // in a chunk, the last chunk of a head apart
  const float* bias_table;     // [buckets, heads], or null
  const int32_t* bias_bucket;  // bucket of key - query, from -(queries - 1) to keys - 1
};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a chunk works on, in the thread's scratch.
struct Workspace {
  float* q;       // [panels, headDim, kPanel], scaled
  float* mixed;   // [panels, paddedDim, kPanel]
  float* max;     // [panels, kPanel]
  float* sum;     // [panels, kPanel]
  float* k;       // [kKeyBlock, headDim]
  float* v;       // [kKeyBlock, paddedDim]
  float* scores;  // [kKeyBlock, kPanel]
  float* bias;    // by query - key, from 1 - keys to the chunk's last query
};

Workspace workspace(const Problem& p) {
  const int64_t lanes = p.panels * kPanel;
  const int64_t sizes[] = {lanes * p.head_dim,
                           lanes * p.padded_dim,
                           lanes,
                           lanes,
                           kKeyBlock * p.head_dim,
                           kKeyBlock * p.padded_dim,
                           kKeyBlock * kPanel,
                           p.bias_table ? lanes + p.keys : 0};
  int64_t total = 0;
  for (const int64_t size : sizes) total += ceil_div(size, 16) * 16;
  float* next = static_cast<float*>(scratch(Scratch::kThread, total * static_cast<int64_t>(sizeof(float))));
  float* parts[8];
  for (int i = 0; i < 8; ++i) {
    parts[i] = next;
    next += ceil_div(sizes[i], 16) * 16;
  }
  return {parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7]};
}

// One head of one sequence, `queries` of it from first_query on.
struct Chunk {
  int64_t sequence, head, first_query, queries;
};

const float* rows_of(const Problem& p, const TensorView& x, int64_t sequence_rows, const Chunk& c,
                     int64_t row) {
  return x.row<float>(c.sequence * sequence_rows + row) + c.head * p.head_dim;
}

void load_queries(const Problem& p, const Chunk& c, const Workspace& w) {
  for (int64_t first = 0; first < c.queries; first += kPanel) {
    float* panel = w.q + first * p.head_dim;
    const int64_t count = smaller(kPanel, c.queries - first);
    load_transposed(panel, rows_of(p, p.q, p.queries, c, c.first_query + first), p.q.row_stride, count,
                    p.head_dim);
    const VF scale = v_set(p.options.scale);
    for (int64_t d = 0; d < p.head_dim; ++d) {
      float* row = panel + d * kPanel;
      for (int64_t i = count; i < kPanel; ++i) row[i] = 0;
      for (int v = 0; v < kVectors; ++v) v_store(row + v * kLanes, v_mul(v_load(row + v * kLanes), scale));
    }
  }
}

void copy_rows(float* dst, int64_t pitch, const float* src, int64_t src_stride, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    memcpy(dst + r * pitch, src + r * src_stride, static_cast<size_t>(cols) * sizeof(float));
    for (int64_t c = cols; c < pitch; ++c) dst[r * pitch + c] = 0;
  }
}

// Keys up to whole kRows: the scores of absent ones are computed and then ignored.
void load_keys(const Problem& p, const Chunk& c, const Workspace& w, int64_t first_key, int64_t count) {
  copy_rows(w.k, p.head_dim, rows_of(p, p.k, p.keys, c, first_key), p.k.row_stride, count, p.head_dim);
  memset(w.k + count * p.head_dim, 0, static_cast<size_t>((kKeyBlock - count) * p.head_dim) * sizeof(float));
  copy_rows(w.v, p.padded_dim, rows_of(p, p.v, p.keys, c, first_key), p.v.row_stride, count, p.head_dim);
}

// The bias depends on query - key only: one vector a head. Lanes past the last query repeat its values.
void load_bias(const Problem& p, const Chunk& c, const Workspace& w) {
  const int64_t lanes = ceil_div(c.queries, kPanel) * kPanel;
  for (int64_t i = 0; i < lanes + p.keys - 1; ++i) {
    const int64_t query_minus_key = smaller(c.first_query + i, p.queries + p.keys - 2) - (p.keys - 1);
    w.bias[i] = p.bias_table[p.bias_bucket[p.queries - 1 - query_minus_key] * p.options.heads + c.head];
  }
}

template <int V>
void attend_panel(const Problem& p, const Workspace& w, int64_t panel, int64_t keys,
                  const ScoreRules& rules) {
  const float* q = w.q + panel * p.head_dim * kPanel;
  for (int64_t j = 0; j < keys; j += kRows)
    score_rows<V>(w.scores + j * kPanel, w.k + j * p.head_dim, p.head_dim, q);
  if (rules.bias || rules.mask || rules.causal) apply_rules<V>(w.scores, keys, rules);
  alignas(64) float keep[kPanel];
  softmax_step<V>(w.scores, keys, w.max + panel * kPanel, w.sum + panel * kPanel, keep);
  float* mixed = w.mixed + panel * p.padded_dim * kPanel;
  for (int64_t d = 0; d < p.padded_dim; d += kRows)
    mix_rows<V>(mixed + d * kPanel, keep, w.v + d, p.padded_dim, w.scores, keys);
}

void attend_tile(const Problem& p, const Chunk& c, const Workspace& w, int64_t first_key, int64_t keys) {
  const Attention& a = p.options;
  for (int64_t panel = 0; panel * kPanel < c.queries; ++panel) {
    const int64_t first_query = c.first_query + panel * kPanel;
    const int64_t count = smaller(kPanel, c.queries - panel * kPanel);
    if (a.causal && first_key >= first_query + count) continue;
    const ScoreRules rules = {
        .bias = p.bias_table ? w.bias + panel * kPanel + p.keys - 1 - first_key : nullptr,
        .mask = a.key_mask.empty() ? nullptr : a.key_mask.as<int32_t>() + c.sequence * p.keys + first_key,
        .causal = a.causal && first_key + keys > first_query + 1,
        .first_key_minus_first_query = first_key - first_query,
    };
    if (count > 2 * kLanes)
      attend_panel<3>(p, w, panel, keys, rules);
    else if (count > kLanes)
      attend_panel<2>(p, w, panel, keys, rules);
    else
      attend_panel<1>(p, w, panel, keys, rules);
  }
}

void store_output(const Problem& p, const Chunk& c, const Workspace& w) {
  for (int64_t first = 0; first < c.queries; first += kPanel) {
    float* mixed = w.mixed + first * p.padded_dim;
    const int64_t count = smaller(kPanel, c.queries - first);
    for (int64_t i = 0; i < count; i += kLanes) {
      const VF factor = v_div(v_set(1), v_load(w.sum + first + i));
      for (int64_t d = 0; d < p.head_dim; ++d)
        v_store(mixed + d * kPanel + i, v_mul(v_load(mixed + d * kPanel + i), factor));
    }
    float* out = p.out.row<float>(c.sequence * p.queries + c.first_query + first) + c.head * p.head_dim;
    store_transposed(out, p.out.row_stride, mixed, count, p.head_dim);
  }
}

void attend_chunk(const Problem& p, const Chunk& c) {
  const Workspace w = workspace(p);
  const int64_t lanes = ceil_div(c.queries, kPanel) * kPanel;
  memset(w.mixed, 0, static_cast<size_t>(lanes * p.padded_dim) * sizeof(float));
  for (int64_t i = 0; i < lanes; ++i) {
    w.max[i] = -__builtin_inff();
    w.sum[i] = 0;
  }
  load_queries(p, c, w);
  if (p.bias_table) load_bias(p, c, w);
  const int64_t keys = p.options.causal ? smaller(p.keys, c.first_query + c.queries) : p.keys;
  for (int64_t j = 0; j < keys; j += kKeyBlock) {
    const int64_t count = smaller(kKeyBlock, keys - j);
    load_keys(p, c, w, j, count);
    attend_tile(p, c, w, j, count);
  }
  store_output(p, c, w);
}

// Fills in the relative bias from the op's own scratch: the decoded table, and the bucket of every distance.
void prepare_bias(Problem& p) {
  const TensorView& table = p.options.bias_table;
  const int64_t distances = p.queries + p.keys - 1, elements = table.elements();
  auto* weights =
      static_cast<float*>(scratch(Scratch::kOp, elements * static_cast<int64_t>(sizeof(float)) +
                                                    distances * static_cast<int64_t>(sizeof(int32_t))));
  auto* bucket = reinterpret_cast<int32_t*>(weights + elements);
  for (int64_t r = 0; r < table.rows(); ++r)
    decode_row(table.dtype, table.row_bytes(r), weights + r * table.cols(), table.cols());
  for (int64_t i = 0; i < distances; ++i)
    bucket[i] = relative_bucket(i - (p.queries - 1), static_cast<int>(table.rows()), p.options.bidirectional,
                                p.options.max_distance);
  p.bias_table = weights;
  p.bias_bucket = bucket;
}

// Panels a chunk: many share a copied tile of keys, as long as their queries fit in half of L1 or so and
// every thread gets some chunks.
int64_t choose_panels(const Context& context, const Attention& a, int64_t queries, int64_t head_dim) {
  constexpr int64_t kQueryFloats = 16384, kMost = 192 / kPanel, kChunksPerThread = 4;
  int64_t panels = smaller(kMost, kQueryFloats / (head_dim * kPanel));
  const int64_t all = a.batch * a.heads * ceil_div(queries, kPanel);
  panels = smaller(panels, all / (context.threads * kChunksPerThread));
  return panels < 1 ? 1 : panels;
}

}  // namespace

// q, out: F32 [batch * queries, heads * headDim]; k, v: F32 [batch * keys, heads * headDim]; rows may be
// strided. `out` may alias `q`.
void attention(const Context& context, TensorView out, TensorView q, TensorView k, TensorView v,
               const Attention& a) {
  const int64_t head_dim = q.cols() / a.heads, queries = q.rows() / a.batch, keys = k.rows() / a.batch;
  if (queries == 0 || keys == 0 || head_dim == 0) return;
  Problem p = {a,
               out,
               q,
               k,
               v,
               queries,
               keys,
               head_dim,
               ceil_div(head_dim, kRows) * kRows,
               choose_panels(context, a, queries, head_dim),
               nullptr,
               nullptr};
  if (!a.bias_table.empty()) prepare_bias(p);
  const int64_t chunk_queries = p.panels * kPanel, blocks = ceil_div(queries, chunk_queries);
  context.pool->run(context.threads, a.batch * a.heads * blocks, [&](int64_t i) {
    if (is_cancelled(context)) return;
    const int64_t first = i % blocks * chunk_queries;
    attend_chunk(
        p, {i / blocks / a.heads, i / blocks % a.heads, first, smaller(chunk_queries, queries - first)});
  });
}

}  // namespace kotoba::cpu::KOTOBA_ISA
