// out = epilogue(x [m, k] · w [n, k]ᵀ) on mma.sync (sm_80 and newer): a block makes one tile of the output,
// its warps a part of it each. Factors come in steps of k through a ring of stages in shared memory
// (cp.async) and from there to registers (ldmatrix), one step of the tensor cores ahead. dense_mma.cu
// multiplies numbers, split_mma.cu sums of two numbers, in the same loop.
#pragma once

#include <algorithm>

#include "mma_finish.cuh"

namespace kotoba::cuda {

__device__ __forceinline__ void mma(F16Number, float (&d)[4], const uint32_t (&a)[4],
                                    const uint32_t (&b)[2]) {
  ptx::mma_m16n8k16_f16(d, a, b);
}
__device__ __forceinline__ void mma(BF16Number, float (&d)[4], const uint32_t (&a)[4],
                                    const uint32_t (&b)[2]) {
  ptx::mma_m16n8k16_bf16(d, a, b);
}

// Where 8 numbers of a row lie in a tile of kDepth columns. A row's pieces of 16 bytes change places with the
// row, so that 8 rows' pieces of one column meet 8 different groups of banks.
template <int kDepth>
__device__ __forceinline__ constexpr int swizzled(int row, int piece) {
  static_assert(kDepth == 32 || kDepth == 64);
  return row * kDepth + (piece ^ (kDepth == 64 ? row % 8 : row / 2 % 4)) * 8;
}

template <int kDepth>
constexpr bool is_free_of_conflicts() {
  for (int piece = 0; piece < kDepth / 8; ++piece) {
    unsigned banks = 0;
    for (int row = 0; row < 8; ++row) banks |= 1u << swizzled<kDepth>(row, piece) / 8 % 8;
    if (banks != 0xff) return false;
  }
  return true;
}
static_assert(is_free_of_conflicts<32>() && is_free_of_conflicts<64>());

// A thread's share of the copies of kLines rows from global memory to a stage.
template <int kLines, int kDepth, int kThreads>
struct RowCopies {
  static constexpr int kPieces = kDepth / 8, kAtOnce = kThreads / kPieces, kTurns = kLines / kAtOnce;
  static_assert(kAtOnce % 8 == 0 && kTurns * kAtOnce == kLines);
  const uint16_t* first;     // the tile's first row, at the next step of k
  uint32_t offsets[kTurns];  // of the thread's pieces from there, in pieces
  int to, column;

  // Rows from `first_row` on; beyond the last one it is read again, for results that nobody stores.
  __device__ __forceinline__ RowCopies(const uint16_t* data, int64_t stride, int first_row, int rows, int k)
      : first(data + first_row * stride + k) {
    const int thread = static_cast<int>(threadIdx.x), row = thread / kPieces, piece = thread % kPieces;
    to = swizzled<kDepth>(row, piece);
    column = k + piece * 8;
    KOTOBA_UNROLL(unroll)
    for (int turn = 0; turn < kTurns; ++turn)
      offsets[turn] = static_cast<uint32_t>(std::min(row + turn * kAtOnce, rows - 1 - first_row)) *
                          static_cast<uint32_t>(stride / 8) +
                      static_cast<uint32_t>(piece);
  }
  // offset: to another part of the factors, in numbers
  __device__ __forceinline__ void start(uint16_t* tile, int k, int64_t offset = 0) const {
    const auto* from = reinterpret_cast<const uint4*>(first + offset);
    KOTOBA_UNROLL(unroll)
    for (int turn = 0; turn < kTurns; ++turn)
      ptx::cp_async_16(tile + to + turn * kAtOnce * kDepth, from + offsets[turn], column < k);
  }
  __device__ __forceinline__ void advance() {
    first += kDepth;
    column += kDepth;
  }
};

// The ring of stages: x and w of a step of k each, their parts one after the other.
template <typename Kernel>
struct Stages {
  using Tile = typename Kernel::Tile;
  RowCopies<Tile::kRows, Tile::kDepth, Tile::kThreads> x;
  RowCopies<Tile::kCols, Tile::kDepth, Tile::kThreads> w;
  int64_t x_low, w_low;  // from the high to the low parts, in numbers
  uint16_t* data;
  int next = 0, left, k;

  __device__ __forceinline__ Stages(const MmaProblem& p, const MmaPlace& place, uint16_t* shared)
      : x(p.x[0], p.x_stride, place.row, p.m, place.first_step * Tile::kDepth),
        w(p.w[0], p.w_stride, place.col, p.n, place.first_step * Tile::kDepth),
        x_low(Kernel::kXParts == 2 ? p.x[1] - p.x[0] : 0),
        w_low(Kernel::kWParts == 2 ? p.w[1] - p.w[0] : 0),
        data(shared),
        left(place.steps),
        k(p.k) {}

  // The next step's copies, to the next stage; nothing, but a group to wait for all the same, after the last.
  __device__ __forceinline__ void start_next() {
    if (left > 0) {
      uint16_t* stage = data + next * Kernel::kStageNumbers;
      x.start(stage, k);
      if constexpr (Kernel::kXParts == 2) x.start(stage + Kernel::kXNumbers, k, x_low);
      stage += Kernel::kXParts * Kernel::kXNumbers;
      w.start(stage, k);
      if constexpr (Kernel::kWParts == 2) w.start(stage + Kernel::kWNumbers, k, w_low);
      x.advance();
      w.advance();
      --left;
    }
    next = next + 1 == Tile::kStages ? 0 : next + 1;
    ptx::cp_async_commit();
  }
};

// A warp's factors for one step of the tensor cores, 16 of k.
template <typename Kernel>
struct Fragments {
  using Tile = typename Kernel::Tile;
  uint32_t x[Kernel::kXParts][Tile::kDown][4];
  uint32_t w[Kernel::kWParts][Tile::kAcross / 2]
            [4];  // columns 0…7 with k 0…7 and 8…15, columns 8…15 likewise

  // x_at, w_at: where the lane's first row lies in a tile
  __device__ __forceinline__ void load(const uint16_t* stage, int x_at, int w_at, int step) {
    const uint16_t* x_tile = stage + (x_at ^ step * 16);
    const uint16_t* w_tile = stage + Kernel::kXParts * Kernel::kXNumbers + (w_at ^ step * 16);
    KOTOBA_UNROLL(unroll)
    for (int part = 0; part < Kernel::kXParts; ++part) KOTOBA_UNROLL(unroll)
    for (int i = 0; i < Tile::kDown; ++i)
      ptx::ldmatrix_x4(x[part][i], x_tile + part * Kernel::kXNumbers + i * 16 * Tile::kDepth);
    KOTOBA_UNROLL(unroll)
    for (int part = 0; part < Kernel::kWParts; ++part) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < Tile::kAcross / 2; ++j)
      ptx::ldmatrix_x4(w[part][j], w_tile + part * Kernel::kWNumbers + j * 16 * Tile::kDepth);
  }

  // Part kX of x by part kW of w.
  template <int kX, int kW>
  __device__ __forceinline__ void multiply(typename Kernel::Sums& sums) const {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < Tile::kDown; ++i) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < Tile::kAcross; ++j) {
      const uint32_t b[2] = {w[kW][j / 2][j % 2 * 2], w[kW][j / 2][j % 2 * 2 + 1]};
      mma(typename Kernel::Number{}, sums[i][j], x[kX][i], b);
    }
  }
};

// What a block of warps works through, stage by stage: `fragments` are one step of the tensor cores ahead.
template <typename Kernel>
struct MainLoop {
  using Tile = typename Kernel::Tile;
  using Sums = typename Kernel::Sums;
  static constexpr int kSteps = Tile::kDepth / 16;  // of the tensor cores to a stage

  Stages<Kernel> stages;
  Fragments<Kernel> fragments[2];
  int x_at, w_at, stage = 0;

  __device__ __forceinline__ MainLoop(const MmaProblem& p, const MmaPlace& place, uint16_t* shared)
      : stages(p, place, shared) {
    const WarpPlace warp = WarpPlace::of<Tile>();
    const int lane = warp.lane;
    x_at = swizzled<Tile::kDepth>(warp.row + lane % 16, lane / 16);
    w_at = swizzled<Tile::kDepth>(warp.col + lane / 16 * 8 + lane % 8, lane / 8 % 2);
    for (int i = 0; i < Tile::kStages - 1; ++i) stages.start_next();
    wait_for_stage();
    load(0);
  }
  // All warps have read the stage before to its end, and this one is there.
  __device__ __forceinline__ void wait_for_stage() {
    ptx::cp_async_wait<Tile::kStages - 2>();
    __syncthreads();
  }
  __device__ __forceinline__ void load(int step) {
    fragments[step % 2].load(stages.data + stage * Kernel::kStageNumbers, x_at, w_at, step);
  }
  __device__ __forceinline__ void load_next_stage() {
    wait_for_stage();
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
    load(0);
  }

  __device__ __forceinline__ void add_stage(Sums& sums) {
    KOTOBA_UNROLL(unroll)
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps)
        load(step + 1);
      else
        load_next_stage();
      if (step == 0) stages.start_next();  // over the stage that was read before this one
      fragments[step % 2].template multiply<0, 0>(sums);
    }
  }

  // The tensor cores round towards zero, by the size of the sum. So a stage's products have a sum of their
  // own, that of the small ones comes first, and what is added up over the stages is rounded as in FP32. Low
  // times low is below FP32's rounding.
  __device__ __forceinline__ void add_split_stage(Sums& sums) {
    static_assert(kSteps == 2);
    Sums part = {};
    load(1);
    stages.start_next();
    KOTOBA_UNROLL(unroll)
    for (int step = 0; step < kSteps; ++step) {
      fragments[step].template multiply<1, 0>(part);
      if constexpr (Kernel::kWParts == 2) fragments[step].template multiply<0, 1>(part);
    }
    fragments[0].template multiply<0, 0>(part);
    const Fragments<Kernel> last = fragments[1];
    load_next_stage();
    last.template multiply<0, 0>(part);
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < Tile::kDown; ++i) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < Tile::kAcross; ++j) KOTOBA_UNROLL(unroll)
    for (int r = 0; r < 4; ++r) sums[i][j][r] += part[i][j][r];
  }
};

// The lane's sums over the block's part of k. Shared memory may be used again afterwards.
template <typename Kernel>
__device__ __forceinline__ void multiply_tile(const MmaProblem& p, const MmaPlace& place, uint16_t* shared,
                                              typename Kernel::Sums& sums) {
  MainLoop<Kernel> loop(p, place, shared);
  KOTOBA_UNROLL(unroll 1)
  for (int step = 0; step < place.steps; ++step) {
    if constexpr (Kernel::kIsSplit)
      loop.add_split_stage(sums);
    else
      loop.add_stage(sums);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
}

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::Tile::kThreads, Kernel::Tile::kBlocks)
    matmul_mma_kernel(const __grid_constant__ MmaProblem p) {
  KOTOBA_DYNAMIC_SHARED(shared);
  const MmaPlace place = MmaPlace::of_block<typename Kernel::Tile>(p);
  typename Kernel::Sums sums = {};
  multiply_tile<Kernel>(p, place, reinterpret_cast<uint16_t*>(shared), sums);
  if (p.splits > 1 && !sum_of_parts<Kernel>(p, place, shared, sums)) return;
  finish_tile<Kernel>(p, place, reinterpret_cast<float*>(shared), sums);
}

template <typename Kernel>
void run_mma(const Context& context, const char* name, MmaProblem p, int splits) {
  using Tile = typename Kernel::Tile;
  p.splits = splits;
  const int64_t tiles = mma_tiles(Tile::shape(), p.m, p.n);
  std::optional<Scratch> parts;
  if (splits > 1) {
    const int64_t sums = tiles * splits * Tile::kRows * Tile::kCols;
    parts.emplace(context.pool, 4 * (sums + tiles));
    p.parts = parts->as<float>();
    p.arrived = parts->as<unsigned>() + sums;
    check(cudaMemsetAsync(p.arrived, 0, static_cast<size_t>(4 * tiles), context.stream.get()),
          "clearing memory");
  }
  launch(context.stream, {name, tiles * splits, Tile::kThreads, Kernel::kSharedBytes},
         matmul_mma_kernel<Kernel>, p);
}

}  // namespace kotoba::cuda
