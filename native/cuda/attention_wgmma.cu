// Attention on Hopper for heads of up to 128 columns, F16 and BF16, as in FlashAttention-3
// (arXiv:2407.08608): one warp copies tiles of K and V to a ring in shared memory by TMA; two warpgroups of
// 64 queries each take turns at the tensor cores, and one's softmax runs under the other's products and under
// its own weights · V of the tile before. Blocks stay and take one piece of work after the other.
#include "attention_softmax.cuh"
#include "numbers.cuh"
#include "tensor_map.h"

namespace kotoba::cuda {
namespace {

constexpr int kGroups = 2, kGroupRows = 64;     // warpgroups that multiply, and their queries
constexpr int kRows = kGroups * kGroupRows;     // queries of a block, and keys of a tile
constexpr int kWarps = 4 * kGroups;             // that multiply
constexpr int kThreads = 32 * kWarps + 128;     // with the warpgroup that copies
constexpr int kPanelBytes = kRows * 128;        // a box of TMA: 64 columns of a tile
constexpr int kQuerySlots = 2, kBiasSlots = 2;  // the next piece of work is there when it is needed

// kDims: columns of a head, 64 or 128.
template <int kDims>
struct Tiles {
  static constexpr int kPanels = kDims / 64;
  static constexpr int kTileBytes = kPanels * kPanelBytes;
  static constexpr int kSlots = 8 / kPanels;  // K, V, K, V, …
  static constexpr int kBytes = (kQuerySlots + kSlots) * kTileBytes;

  std::byte* q;     // [kQuerySlots] tiles
  std::byte* ring;  // [kSlots] tiles
  float* bias;      // [kBiasSlots][bias_pitch]
  int bias_pitch;
};

struct Barriers {
  uint64_t q_full[kQuerySlots], q_empty[kQuerySlots];
  uint64_t full[8], empty[8];  // of the ring
  uint64_t bias_full[kBiasSlots], bias_empty[kBiasSlots];
  uint64_t turn[kGroups];       // at the tensor cores
  uint64_t rows_done[kGroups];  // all warps of the group have used the queries
};

// A tensor map for each of q, k, v: [batch, heads, tokens, head_dim].
struct Maps {
  TensorMap q, k, v;
};

#ifdef KOTOBA_SM90A

constexpr int kBiasThreads = 96;                 // of the warpgroup that copies: all but its first warp
constexpr int kMargin = bias_margin(16, kRows);  // of the bias

__device__ __forceinline__ void init_barriers(Barriers& b) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < kQuerySlots; ++i) {
      ptx::mbarrier_init(&b.q_full[i], 1);
      ptx::mbarrier_init(&b.q_empty[i], kWarps);
    }
    for (int i = 0; i < 8; ++i) {
      ptx::mbarrier_init(&b.full[i], 1);
      ptx::mbarrier_init(&b.empty[i], kWarps);
    }
    for (int i = 0; i < kBiasSlots; ++i) {
      ptx::mbarrier_init(&b.bias_full[i], kBiasThreads);
      ptx::mbarrier_init(&b.bias_empty[i], kWarps);
    }
    for (int i = 0; i < kGroups; ++i) {
      ptx::mbarrier_init(&b.turn[i], 4);
      ptx::mbarrier_init(&b.rows_done[i], 4);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
}

// Slots are used in turn; `n` counts uses, and the parity of its phase changes with every round.
__device__ __forceinline__ void wait_full(uint64_t* barriers, int slots, int n) {
  ptx::mbarrier_wait(&barriers[n % slots], n / slots & 1);
}
__device__ __forceinline__ void wait_empty(uint64_t* barriers, int slots, int n) {
  ptx::mbarrier_wait(&barriers[n % slots], (n / slots & 1) ^ 1);
}
// By every warp that multiplies, when its lanes are done.
__device__ __forceinline__ void release(uint64_t* barriers, int slots, int n) {
  if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&barriers[n % slots]);
}

// ---- the warps that fetch

template <int kDims>
__device__ __forceinline__ void copy_tile(std::byte* tile, const TensorMap* map, uint64_t* full,
                                          const Place& place, int first_row) {
  ptx::mbarrier_arrive_expect(full, Tiles<kDims>::kTileBytes);
  for (int panel = 0; panel < Tiles<kDims>::kPanels; ++panel)
    ptx::tma_load_4d(tile + panel * kPanelBytes, map, full, 64 * panel, first_row, place.head,
                     place.sequence);
}

// One thread.
template <int kDims>
__device__ __forceinline__ void copy_tiles(const AttentionProblem& p, const Maps& maps,
                                           const Tiles<kDims>& tiles, Barriers& b, int places) {
  using Shared = Tiles<kDims>;
  int n = 0, round = 0;  // tiles of the ring, pieces of work
  for (int index = static_cast<int>(blockIdx.x); index < places; index += static_cast<int>(gridDim.x)) {
    const Place place = place_at<kRows>(p, index);
    wait_empty(b.q_empty, kQuerySlots, round);
    copy_tile<kDims>(tiles.q + round % kQuerySlots * Shared::kTileBytes, &maps.q,
                     &b.q_full[round % kQuerySlots], place, place.first_query);
    ++round;
    for (int key = 0; key < place.keys; key += kRows)
      for (const TensorMap* map : {&maps.k, &maps.v}) {
        wait_empty(b.empty, Shared::kSlots, n);
        copy_tile<kDims>(tiles.ring + n % Shared::kSlots * Shared::kTileBytes, map,
                         &b.full[n % Shared::kSlots], place, key);
        ++n;
      }
  }
}

// Three warps.
template <int kDims>
__device__ __forceinline__ void build_biases(const AttentionProblem& p, const Tiles<kDims>& tiles,
                                             Barriers& b, int places, int thread) {
  int round = 0;
  for (int index = static_cast<int>(blockIdx.x); index < places; index += static_cast<int>(gridDim.x)) {
    wait_empty(b.bias_empty, kBiasSlots, round);
    build_bias<kBiasThreads>(tiles.bias + round % kBiasSlots * tiles.bias_pitch, p,
                             place_at<kRows>(p, index).head, kMargin, thread);
    ptx::mbarrier_arrive(&b.bias_full[round % kBiasSlots]);
    ++round;
  }
}

// ---- the warpgroups that multiply

// scores = q kᵀ, under way.
template <typename Number, int kDims>
__device__ __forceinline__ void multiply_keys(float (&scores)[kRows / 2], const std::byte* q,
                                              const std::byte* k) {
  const uint64_t a = ptx::wgmma_descriptor(q), b = ptx::wgmma_descriptor(k);
  ptx::wgmma_fence();
  KOTOBA_UNROLL(unroll)
  for (int step = 0; step < kDims / 16; ++step) {
    const int further = (step / 4 * kPanelBytes + step % 4 * 32) >> 4;
    if constexpr (std::is_same_v<Number, F16Number>)
      ptx::wgmma_f16<kRows>(scores, a + further, b + further, step > 0);
    else
      ptx::wgmma_bf16<kRows>(scores, a + further, b + further, step > 0);
  }
  ptx::wgmma_commit();
}

// mixed += weights · v, under way.
template <typename Number, int kDims>
__device__ __forceinline__ void multiply_values(float (&mixed)[kDims / 2],
                                                const uint32_t (&weights)[kRows / 16][4],
                                                const std::byte* v) {
  const uint64_t b = ptx::wgmma_descriptor_kn(v, kPanelBytes);
  ptx::wgmma_fence();
  KOTOBA_UNROLL(unroll)
  for (int step = 0; step < kRows / 16; ++step) {
    const int further = step * 16 * 128 >> 4;
    if constexpr (std::is_same_v<Number, F16Number>)
      ptx::wgmma_f16_kn<kDims>(mixed, weights[step], b + further, true);
    else
      ptx::wgmma_bf16_kn<kDims>(mixed, weights[step], b + further, true);
  }
  ptx::wgmma_commit();
}

template <typename Number>
__device__ __forceinline__ void pack_weights(uint32_t (&weights)[kRows / 16][4],
                                             const float (&scores)[kRows / 2]) {
  KOTOBA_UNROLL(unroll)
  for (int step = 0; step < kRows / 16; ++step) KOTOBA_UNROLL(unroll)
  for (int i = 0; i < 4; ++i)
    weights[step][i] = Number::pack(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
}

// The warp's 16 rows to out, through its rows of the tile of queries, `stage`: from there they leave side by
// side. Loops are not unrolled where that would keep addresses in registers all along.
template <typename Number, int kDims>
__device__ __forceinline__ void store_rows(const AttentionProblem& p, const Place& place, int first_row,
                                           std::byte* stage, const float (&mixed)[kDims / 2],
                                           const RowSums& sums) {
  constexpr int kChunks = kDims / 8;  // of 16 bytes, swizzled so that no bank is met twice
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto chunk_at = [&](int row, int chunk) {
    return stage + chunk / 8 * kPanelBytes + row * 128 + (chunk % 8 ^ row % 8) * 16;
  };
  KOTOBA_UNROLL(unroll)
  for (int h = 0; h < 2; ++h) {
    const float factor = 1 / sums.total(h);
    std::byte* row = stage + (8 * h + lane / 4) * 128;
    const int first = lane / 4 * 16 + lane % 4 * 4;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kChunks; ++j)
      *reinterpret_cast<uint32_t*>(row + (first ^ j % 8 * 16) + j / 8 * kPanelBytes) =
          Number::pack(mixed[4 * j + 2 * h] * factor, mixed[4 * j + 2 * h + 1] * factor);
  }
  __syncwarp();
  const int present = place.queries - first_row;
  const int64_t first = int64_t{place.sequence} * p.queries + place.first_query + first_row;
  uint16_t* out =
      reinterpret_cast<uint16_t*>(p.out) + first * p.out_stride + int64_t{place.head} * p.head_dim;
  KOTOBA_UNROLL(unroll 1)
  for (int i = lane; i < 16 * kChunks; i += 32) {
    const int row = i / kChunks, chunk = i % kChunks;
    if (row >= present || 8 * chunk >= p.head_dim) continue;
    const std::byte* from = chunk_at(row, chunk);
    uint16_t* to = out + row * p.out_stride + 8 * chunk;
    if (p.wide_stores)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else  // the head's columns are whole chunks all the same
      for (int c = 0; c < 8; ++c) to[c] = reinterpret_cast<const uint16_t*>(from)[c];
  }
}

template <typename Number, int kDims>
__device__ __forceinline__ void attend(const AttentionProblem& p, const Tiles<kDims>& tiles, Barriers& b,
                                       int places, int group) {
  using Shared = Tiles<kDims>;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int first_row = group * kGroupRows + warp * 16;
  const float scale = p.scale * kLog2e;
  int n = 0, round = 0, turns = 0;
  for (int index = static_cast<int>(blockIdx.x); index < places;
       index += static_cast<int>(gridDim.x), ++round) {
    const Place place = place_at<kRows>(p, index);
    const int32_t* mask = p.key_mask ? p.key_mask + int64_t{place.sequence} * p.keys : nullptr;
    std::byte* q = tiles.q + round % kQuerySlots * Shared::kTileBytes;
    const std::byte* own_q = q + group * kGroupRows * 128;
    const HeadBias bias = bias_at(p, tiles.bias + round % kBiasSlots * tiles.bias_pitch, kMargin);
    float scores[kRows / 2], mixed[kDims / 2] = {}, keep[2];
    uint32_t weights[kRows / 16][4];
    RowSums sums;
    SeenKeys<kRows> seen;
    const auto tile = [&](int i) { return tiles.ring + i % Shared::kSlots * Shared::kTileBytes; };
    const auto load_mask = [&](int key) {
      seen.load(mask ? mask + key : nullptr, static_cast<int>(p.keys) - key);
    };
    const auto weigh = [&](int key) {
      auto& by_tile = reinterpret_cast<float(&)[kRows / 8][4]>(scores);
      const TilePlace at = {place.first_query + first_row, key};
      const Linear rest = apply_rules<kRows / 8>(by_tile, p, bias, seen, at, scale);
      softmax_step<kRows / 8>(by_tile, rest, sums, keep);
    };

    // The first keys.
    wait_full(b.q_full, kQuerySlots, round);
    wait_full(b.full, Shared::kSlots, n);
    multiply_keys<Number, kDims>(scores, own_q, tile(n));
    load_mask(0);
    if (bias.vector) wait_full(b.bias_full, kBiasSlots, round);
    ptx::wgmma_wait<0>();
    ptx::hold_registers(scores);
    release(b.empty, Shared::kSlots, n);
    weigh(0);
    pack_weights<Number>(weights, scores);

    // Each further tile's scores, under which the values of the one before are mixed.
    for (int key = kRows; key < place.keys; key += kRows) {
      const int values = n + 1, keys = n + 2;
      n = keys;
      wait_full(b.full, Shared::kSlots, keys);
      ptx::mbarrier_wait(&b.turn[group], (turns & 1) ^ (group == 0 ? 1 : 0));
      ++turns;
      multiply_keys<Number, kDims>(scores, own_q, tile(keys));
      wait_full(b.full, Shared::kSlots, values);
      multiply_values<Number, kDims>(mixed, weights, tile(values));
      if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&b.turn[1 - group]);
      load_mask(key);
      ptx::wgmma_wait<1>();
      ptx::hold_registers(scores);
      release(b.empty, Shared::kSlots, keys);
      weigh(key);
      ptx::wgmma_wait<0>();
      ptx::hold_registers(mixed);
      release(b.empty, Shared::kSlots, values);
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < kDims / 2; ++i) mixed[i] *= keep[i / 2 % 2];
      pack_weights<Number>(weights, scores);
    }

    // The last values.
    wait_full(b.full, Shared::kSlots, n + 1);
    multiply_values<Number, kDims>(mixed, weights, tile(n + 1));
    ptx::wgmma_wait<0>();
    ptx::hold_registers(mixed);
    release(b.empty, Shared::kSlots, n + 1);
    n += 2;
    if (bias.vector) release(b.bias_empty, kBiasSlots, round);
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&b.rows_done[group]);
    ptx::mbarrier_wait(&b.rows_done[group], round & 1);
    store_rows<Number, kDims>(p, place, first_row, q + first_row * 128, mixed, sums);
    ptx::fence_async_proxy();  // TMA writes there next
    __syncwarp();
    release(b.q_empty, kQuerySlots, round);
  }
}

#endif

template <typename Number, int kDims>
__global__ void __launch_bounds__(kThreads, 1)
    attention_wgmma(const __grid_constant__ AttentionProblem p, const __grid_constant__ Maps maps,
                    int bias_pitch) {
#ifdef KOTOBA_SM90A
  KOTOBA_DYNAMIC_SHARED(memory);
  KOTOBA_SHARED(barriers, Barriers);
  using Shared = Tiles<kDims>;
  const Shared tiles = {memory, memory + kQuerySlots * Shared::kTileBytes,
                        reinterpret_cast<float*>(memory + Shared::kBytes), bias_pitch};
  const int places = static_cast<int>(p.batch * p.heads * ((p.queries + kRows - 1) / kRows));
  const int group = static_cast<int>(threadIdx.x) / 128, thread = static_cast<int>(threadIdx.x) % 128;
  init_barriers(barriers);
  if (group == kGroups) {
    ptx::give_registers<40>();
    if (thread == 0) copy_tiles<kDims>(p, maps, tiles, barriers, places);
    if (thread >= 32 && p.bias_table.data) build_biases<kDims>(p, tiles, barriers, places, thread - 32);
  } else {
    ptx::take_registers<232>();
    attend<Number, kDims>(p, tiles, barriers, places, group);
  }
#endif
}

TensorMap map_of(const AttentionProblem& p, const std::byte* x, int64_t stride, int64_t tokens) {
  return tensor_map(x, {{p.head_dim, 1, kMapColumns},
                        {tokens, stride, kRows},
                        {p.heads, p.head_dim, 1},
                        {p.batch, tokens * stride, 1}});
}

template <int kDims>
void run_with(const Context& context, const AttentionProblem& p) {
  const Maps maps = {map_of(p, p.q, p.q_stride, p.queries), map_of(p, p.k, p.k_stride, p.keys),
                     map_of(p, p.v, p.v_stride, p.keys)};
  const int64_t floats = bias_floats(p, 16, kRows);
  const int64_t blocks = std::min<int64_t>(place_count(p, kRows), p.multiprocessors);
  const int64_t bytes = Tiles<kDims>::kBytes + kBiasSlots * floats * static_cast<int64_t>(sizeof(float));
  dispatch_16_bit(p.dtype, "attention", [&]<typename Number>() {
    launch(context.stream, {"attention_wgmma", blocks, kThreads, bytes}, attention_wgmma<Number, kDims>, p,
           maps, static_cast<int>(floats));
  });
}

void run(const Context& context, const AttentionProblem& p) {
  if (p.head_dim <= 64) return run_with<64>(context, p);
  run_with<128>(context, p);
}

constexpr int64_t kMostBias = 12 << 10;  // bytes of shared memory that the tiles leave to each slot

bool fits(const AttentionProblem& p) {
  return p.is_16_bit() && runs_wgmma(p.arch) && p.head_dim <= 128 && p.wide_loads && p.scale > 0 &&
         p.scale < INFINITY && std::max(p.queries, p.keys) < 1 << 30 && place_count(p, kRows) < 1 << 30 &&
         4 * bias_floats(p, 16, kRows) <= kMostBias;
}

constexpr Variant<AttentionProblem> kVariants[] = {
    {"wgmma_128x128",
     [](const AttentionProblem& p) {
       if (!fits(p)) return kUnfit;
       // exp2 is as slow as the products of 64 columns.
       return p.head_dim <= 64 ? estimated_time(p, kRows, 64, 5e6) : estimated_time(p, kRows, 128, 7e6);
     },
     run},
};

}  // namespace

std::span<const Variant<AttentionProblem>> attention_wgmma_variants() { return kVariants; }

}  // namespace kotoba::cuda
