// Attention on mma.sync for heads of 129 to 512 columns (the autoencoders have one of 512). A block has 64
// queries with all their columns, and makes 128 columns of the output: blocks of the same queries repeat the
// scores, which costs less than handing them around. K comes in parts of 128 columns, then V's part.
#include "attention_mma.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kQueries = 16 * kMmaWarps, kKeys = 32;
constexpr int kColumns = 128;  // of a part
constexpr int kStages = 3;     // parts in shared memory, of which two are on their way
constexpr int kPartNumbers = kKeys * (kColumns + 8);

template <typename Number, int kDims>
__global__ void __launch_bounds__(kMmaThreads, 1) attention_wide(AttentionProblem p, int slices) {
  constexpr int kPitch = kDims + 8, kParts = kDims / kColumns;
  KOTOBA_DYNAMIC_SHARED(shared);
  auto* parts = reinterpret_cast<uint16_t*>(shared);  // [kStages][kPartNumbers]
  uint16_t* q = parts + kStages * kPartNumbers;       // [kQueries, kPitch]
  float* bias_vector = reinterpret_cast<float*>(q + kQueries * kPitch);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, keys = static_cast<int>(p.keys);
  const int slice = static_cast<int>(blockIdx.x) % slices * kColumns;
  const Place place = place_at<kQueries>(p, static_cast<int>(blockIdx.x) / slices);
  const int64_t first_row = int64_t{place.sequence} * p.queries + place.first_query;
  const auto rows_of = [&](const std::byte* x, int64_t row, int64_t stride) {
    return reinterpret_cast<const uint16_t*>(x) + row * stride + int64_t{place.head} * p.head_dim;
  };

  // Part `n` of all: K's parts of a tile of keys, V's, then the next tile's.
  const int tiles = (place.keys + kKeys - 1) / kKeys;
  const auto load_part = [&](int n) {
    const int first_key = n / (kParts + 1) * kKeys, part = n % (kParts + 1);
    const bool is_value = part == kParts;
    const int column = is_value ? slice : part * kColumns;
    const int64_t stride = is_value ? p.v_stride : p.k_stride;
    const uint16_t* from =
        rows_of(is_value ? p.v : p.k, int64_t{place.sequence} * keys + first_key, stride) + column;
    // Without parts left it is an empty group, which keeps the count.
    const int present = n < tiles * (kParts + 1) ? keys - first_key : 0;
    load_rows<kKeys, kColumns>(parts + n % kStages * kPartNumbers, from, stride, present, p.head_dim - column,
                               p.wide_loads);
  };
  // The next part that is needed; the one after the next takes the place of the last.
  int n = 0;
  const auto next_part = [&] {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();
    load_part(n + kStages - 1);
    return parts + n++ % kStages * kPartNumbers;
  };
  load_rows<kQueries, kDims>(q, rows_of(p.q, first_row, p.q_stride), p.q_stride, place.queries, p.head_dim,
                             p.wide_loads);
  for (int i = 0; i < kStages - 1; ++i) load_part(i);
  constexpr int kMargin = bias_margin(16, kKeys);
  build_bias<kMmaThreads>(bias_vector, p, place.head, kMargin, thread);
  const HeadBias bias = bias_at(p, bias_vector, kMargin);

  const int32_t* mask = p.key_mask ? p.key_mask + int64_t{place.sequence} * keys : nullptr;
  uint16_t* own_rows = q + warp * 16 * kPitch;
  float mixed[1][kColumns / 8][4] = {};
  RowSums sums[1];
  for (int key = 0; key < place.keys; key += kKeys) {
    SeenKeys<kKeys> seen;
    seen.load(mask ? mask + key : nullptr, keys - key);
    float scores[1][kKeys / 8][4] = {};
    KOTOBA_UNROLL(unroll 1)
    for (int part = 0; part < kParts; ++part) {
      const uint16_t* k = next_part();
      multiply_keys<Number, kColumns, 1, kKeys>(scores, k, [&](uint32_t(&fragment)[4], int, int step) {
        load_fragment<kPitch>(fragment, own_rows + part * kColumns + 16 * step);
      });
    }
    const TilePlace at = {place.first_query + 16 * warp, key};
    const Linear rest = apply_rules<kKeys / 8>(scores[0], p, bias, seen, at, p.scale * kLog2e);
    float keep[2];
    softmax_step<kKeys / 8>(scores[0], rest, sums[0], keep);
    KOTOBA_UNROLL(unroll)
    for (auto& pair : mixed[0]) KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4; ++i) pair[i] *= keep[i / 2];
    multiply_values<Number, kColumns, 1, kKeys>(mixed, next_part(), scores);
  }
  ptx::cp_async_wait<0>();
  uint16_t* out = reinterpret_cast<uint16_t*>(p.out) + (first_row + 16 * warp) * p.out_stride +
                  int64_t{place.head} * p.head_dim + slice;
  store_rows<Number, kColumns, 1>(out, p, place.queries - 16 * warp, p.head_dim - slice, own_rows, mixed,
                                  sums);
}

template <int kDims>
void run_with(const Context& context, const AttentionProblem& p) {
  const int slices = static_cast<int>(ceil_div(p.head_dim, kColumns));
  const int64_t bytes = 2 * (kStages * kPartNumbers + kQueries * (kDims + 8)) + 4 * bias_floats(p, 16, kKeys);
  dispatch_16_bit(p.dtype, "attention", [&]<typename Number>() {
    launch(context.stream, {"attention_wide", place_count(p, kQueries) * slices, kMmaThreads, bytes},
           attention_wide<Number, kDims>, p, slices);
  });
}

void run(const Context& context, const AttentionProblem& p) {
  if (p.head_dim <= 256) return run_with<256>(context, p);
  run_with<kMostHeadColumns>(context, p);
}

constexpr int64_t kMostBias = 4 << 10;  // bytes of shared memory that 512 columns leave on every card

// Blocks read queries that others may have replaced already if `out` is `q`.
bool fits(const AttentionProblem& p) {
  return p.is_16_bit() && p.arch >= 80 && p.head_dim > 128 && p.head_dim <= kMostHeadColumns &&
         p.out != p.q && p.scale > 0 && p.scale < INFINITY && std::max(p.queries, p.keys) < 1 << 30 &&
         place_count(p, kQueries) < 1 << 28 && 4 * bias_floats(p, 16, kKeys) <= kMostBias;
}

constexpr Variant<AttentionProblem> kVariants[] = {
    {"mma_wide_64x32",
     [](const AttentionProblem& p) {
       return fits(p) ? estimated_time(p, kQueries, 4 * p.head_dim, 1e6) : kUnfit;
     },
     run},
};

}  // namespace

std::span<const Variant<AttentionProblem>> attention_wide_variants() { return kVariants; }

}  // namespace kotoba::cuda
