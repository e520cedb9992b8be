// Attention on mma.sync (sm_80 and newer), F16 and BF16: a warp keeps its queries' scores, weights and sums
// in registers, as in FlashAttention-2 (arXiv:2307.08691). K and V have a tile of shared memory each: one is
// on its way while the other is multiplied.
#include <algorithm>

#include "attention_mma.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kMostKeys = 64;  // to a tile

// kDims: columns of a head, up to a multiple of 16. kRowTiles: times 16 queries to a warp.
template <int kDims, int kRowTiles>
struct Tiles {
  static constexpr int kQueries = 16 * kRowTiles * kMmaWarps;
  static constexpr int kKeys = kRowTiles * kDims > 160 ? kMostKeys / 2 : kMostKeys;  // as registers allow
  static constexpr int kPitch = kDims + 8;  // an odd number of 16 bytes: ldmatrix meets no bank twice
  // Few queries stay in registers, and V takes their place.
  static constexpr bool kKeepsQueries = kRowTiles == 1;
  static constexpr int kKNumbers = kKeys * kPitch;
  static constexpr int kQNumbers = kKeepsQueries ? 0 : kQueries * kPitch;
  static constexpr int kBytes = 2 * (kQNumbers + 2 * kKNumbers);

  // To a multiprocessor: what its registers allow at 128, 168 or 255 to a thread.
  static constexpr int kFewQueriesBlocks = kDims <= 32 ? 4 : kDims <= 80 ? 3 : 2;
  static constexpr int kBlocks = kRowTiles == 1 ? kFewQueriesBlocks : 2;

  uint16_t *k, *v, *q;  // tiles
  float* bias;

  __device__ __forceinline__ explicit Tiles(std::byte* shared) {
    k = reinterpret_cast<uint16_t*>(shared);
    v = k + kKNumbers;
    q = kKeepsQueries ? v : v + kKNumbers;
    bias = reinterpret_cast<float*>(shared + kBytes);
  }
};

template <typename Number, int kDims, int kRowTiles>
__device__ __forceinline__ void attend(const AttentionProblem& p) {
  using Shared = Tiles<kDims, kRowTiles>;
  constexpr int kRows = 16 * kRowTiles, kKeys = Shared::kKeys, kPitch = Shared::kPitch;
  KOTOBA_DYNAMIC_SHARED(memory);
  const Shared shared(memory);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const Place place = place_at<Shared::kQueries>(p, static_cast<int>(blockIdx.x));
  const auto rows_of = [&](const std::byte* x, int64_t row, int64_t stride) {
    return reinterpret_cast<const uint16_t*>(x) + row * stride + int64_t{place.head} * p.head_dim;
  };
  const int keys = static_cast<int>(p.keys);
  const auto load_keys = [&](uint16_t* tile, const std::byte* x, int64_t stride, int first_key) {
    load_rows<kKeys, kDims>(tile, rows_of(x, int64_t{place.sequence} * p.keys + first_key, stride), stride,
                            keys - first_key, p.head_dim, p.wide_loads);
  };

  // Queries, the first keys, the bias.
  const int64_t first_row = int64_t{place.sequence} * p.queries + place.first_query;
  load_rows<Shared::kQueries, kDims>(shared.q, rows_of(p.q, first_row, p.q_stride), p.q_stride, place.queries,
                                     p.head_dim, p.wide_loads);
  load_keys(shared.k, p.k, p.k_stride, 0);
  constexpr int kMargin = bias_margin(16, kMostKeys);
  build_bias<kMmaThreads>(shared.bias, p, place.head, kMargin, static_cast<int>(threadIdx.x));
  const HeadBias bias = bias_at(p, shared.bias, kMargin);
  ptx::cp_async_wait<0>();
  __syncthreads();
  uint16_t* own_rows = shared.q + warp * kRows * kPitch;
  uint32_t kept[Shared::kKeepsQueries ? kDims / 16 : 1][4];
  if constexpr (Shared::kKeepsQueries) {
    KOTOBA_UNROLL(unroll)
    for (int step = 0; step < kDims / 16; ++step) load_fragment<kPitch>(kept[step], own_rows + 16 * step);
    __syncthreads();  // V takes their place
  }
  const auto query = [&](uint32_t(&fragment)[4], int r, int step) {
    if constexpr (Shared::kKeepsQueries) KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4; ++i) fragment[i] = kept[step][i];
    else load_fragment<kPitch>(fragment, own_rows + 16 * r * kPitch + 16 * step);
  };

  float mixed[kRowTiles][kDims / 8][4] = {};
  RowSums sums[kRowTiles];
  for (int first_key = 0; first_key < place.keys; first_key += kKeys) {
    load_keys(shared.v, p.v, p.v_stride, first_key);
    SeenKeys<kKeys> seen_keys;
    seen_keys.load(p.key_mask ? p.key_mask + int64_t{place.sequence} * keys + first_key : nullptr,
                   keys - first_key);
    float scores[kRowTiles][kKeys / 8][4] = {};
    multiply_keys<Number, kDims, kRowTiles, kKeys>(scores, shared.k, query);
    ptx::cp_async_wait<0>();
    __syncthreads();  // V is there, K is free
    if (first_key + kKeys < place.keys) load_keys(shared.k, p.k, p.k_stride, first_key + kKeys);
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRowTiles; ++r) {
      const TilePlace tile = {place.first_query + warp * kRows + 16 * r, first_key};
      const Linear rest = apply_rules<kKeys / 8>(scores[r], p, bias, seen_keys, tile, p.scale * kLog2e);
      float keep[2];
      softmax_step<kKeys / 8>(scores[r], rest, sums[r], keep);
      KOTOBA_UNROLL(unroll)
      for (auto& pair : mixed[r]) KOTOBA_UNROLL(unroll)
      for (int i = 0; i < 4; ++i) pair[i] *= keep[i / 2];
    }
    multiply_values<Number, kDims, kRowTiles, kKeys>(mixed, shared.v, scores);
    ptx::cp_async_wait<0>();
    __syncthreads();  // K is there, V is free
  }
  uint16_t* out = reinterpret_cast<uint16_t*>(p.out) + (first_row + warp * kRows) * p.out_stride +
                  int64_t{place.head} * p.head_dim;
  store_rows<Number, kDims, kRowTiles>(out, p, place.queries - warp * kRows, p.head_dim, own_rows, mixed,
                                       sums);
}

// Two row tiles of 128 columns take every register there is up to sm_89; ptxas wants one more from sm_90 on,
// where they are left out rather than spill it.
constexpr int kArchWithoutWidest = 90;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kHasWidest = false;
#else
constexpr bool kHasWidest = true;
#endif

constexpr bool is_widest(int dims, int row_tiles) { return dims * row_tiles > 192; }

template <typename Number, int kDims, int kRowTiles>
__global__ void __launch_bounds__(kMmaThreads, Tiles<kDims, kRowTiles>::kBlocks)
    attention_mma(AttentionProblem p) {
  if constexpr (kHasWidest || !is_widest(kDims, kRowTiles)) attend<Number, kDims, kRowTiles>(p);
}

template <int kRowTiles, int kDims>
void run_with(const Context& context, const AttentionProblem& p) {
  using Shared = Tiles<kDims, kRowTiles>;
  const int64_t bytes = Shared::kBytes + 4 * bias_floats(p, 16, kMostKeys);
  dispatch_16_bit(p.dtype, "attention", [&]<typename Number>() {
    launch(context.stream, {"attention_mma", place_count(p, Shared::kQueries), kMmaThreads, bytes},
           attention_mma<Number, kDims, kRowTiles>, p);
  });
}

constexpr int kDims[] = {32, 48, 64, 80, 96, 128};

int padded(int head_dim) { return *std::ranges::lower_bound(kDims, head_dim); }

template <int kRowTiles>
void run(const Context& context, const AttentionProblem& p) {
  switch (padded(p.head_dim)) {
    case 32:
      return run_with<kRowTiles, 32>(context, p);
    case 48:
      return run_with<kRowTiles, 48>(context, p);
    case 64:
      return run_with<kRowTiles, 64>(context, p);
    case 80:
      return run_with<kRowTiles, 80>(context, p);
    case 96:
      return run_with<kRowTiles, 96>(context, p);
    default:
      return run_with<kRowTiles, 128>(context, p);
  }
}

constexpr int64_t kMostBias = 32 << 10;  // bytes of shared memory

bool fits(const AttentionProblem& p) {
  return p.is_16_bit() && p.arch >= 80 && p.head_dim <= 128 && p.scale > 0 && p.scale < INFINITY &&
         std::max(p.queries, p.keys) < 1 << 30 && 4 * bias_floats(p, 16, kMostKeys) <= kMostBias;
}

// K and V fragments serve one row tile or two.
constexpr Variant<AttentionProblem> kVariants[] = {
    {"mma_64x64",
     [](const AttentionProblem& p) {
       return fits(p) ? estimated_time(p, 64, padded(p.head_dim), 1.6e6) : kUnfit;
     },
     run<1>},
    {"mma_128x64",
     [](const AttentionProblem& p) {
       const bool is_left_out =
           !kSimulated && p.arch >= kArchWithoutWidest && is_widest(padded(p.head_dim), 2);
       return fits(p) && !is_left_out ? estimated_time(p, 128, padded(p.head_dim), 2e6) : kUnfit;
     },
     run<2>},
};

}  // namespace

std::span<const Variant<AttentionProblem>> attention_mma_variants() { return kVariants; }

}  // namespace kotoba::cuda
