// What a tile of the mma.sync matmuls (matmul_mma.cuh) costs on a problem, and in how many parts to cut k
// when the tiles alone cannot fill the GPU. Plain arithmetic, so that tests can look at the choices.
#pragma once

#include <algorithm>
#include <cstdint>

namespace kotoba::cuda {

struct MmaTileShape {
  int rows, cols, depth;  // of m, n, k
  int stages;             // of depth, in shared memory
  int warps, blocks;      // of a block; blocks that a multiprocessor holds
  int warp_rows, warp_cols;
  int x_parts = 1, w_parts = 1;  // more than one in the split matmul

  constexpr int products() const { return x_parts + w_parts - 1; }
  // Of the tensor cores, at best: an estimate from the ldmatrix beside each mma.
  constexpr double efficiency() const {
    const double loads = x_parts * warp_rows / 16.0 + w_parts * warp_cols / 16.0;
    return 1 - 0.4 * loads / (products() * (warp_rows / 16.0) * (warp_cols / 8.0));
  }
};

struct MmaPlan {
  int splits;           // of k
  double microseconds;  // estimated
};

// A multiprocessor by public specifications. Rough: tiles are compared with each other, not with a clock.
struct MmaMachine {
  double clocks;                  // per microsecond
  double products;                // FP16 multiply-adds per clock that mma.sync reaches, summed in FP32
  double l2_bytes, memory_bytes;  // per clock
};

constexpr MmaMachine mma_machine(int arch) {
  if (arch >= 120) return {2400, 512, 24, 4};
  if (arch >= 100) return {1850, 1024, 48, 29};
  if (arch >= 90) return {1750, 1280, 48, 19};
  if (arch >= 86) return {2400, 512, 24, 4};
  return {1410, 1024, 40, 13};
}

constexpr int kMostSplits = 16;
constexpr int kLeastSteps = 4;                            // of a part of k
constexpr int64_t kMostPartialBytes = int64_t{64} << 20;  // of sums of parts
constexpr double kLatency = 800;                          // clocks until a copy to shared memory is there
constexpr double kLaunchMicroseconds = 2, kExtraLaunchMicroseconds = 1.5;

constexpr int64_t mma_tiles(const MmaTileShape& tile, int64_t m, int64_t n) {
  return ((m + tile.rows - 1) / tile.rows) * ((n + tile.cols - 1) / tile.cols);
}

// With k cut in `splits` parts.
constexpr double mma_microseconds(const MmaTileShape& tile, int64_t m, int64_t n, int64_t k, int splits,
                                  int arch, int multiprocessors) {
  const MmaMachine machine = mma_machine(arch);
  const int64_t steps = (k + tile.depth - 1) / tile.depth, steps_of_part = (steps + splits - 1) / splits;
  const int64_t blocks = mma_tiles(tile, m, n) * splits;
  const double turns =
      static_cast<double>((blocks + multiprocessors - 1) / multiprocessors);  // busiest one's
  const double at_once = std::min<double>(turns, tile.blocks);
  // A scheduler with a single warp cannot hide that warp's latencies.
  const double efficiency = tile.efficiency() * (at_once * tile.warps < 8 ? 0.8 : 1);
  const double stage_bytes = 2.0 * tile.depth * (tile.rows * tile.x_parts + tile.cols * tile.w_parts);
  const double products = static_cast<double>(tile.rows) * tile.cols * tile.depth * tile.products();
  const double copies = stage_bytes / machine.l2_bytes;
  const double step = std::max({products / (machine.products * efficiency) + 0.1 * copies, copies,
                                kLatency / (tile.stages - 1) / at_once});
  // The first copies and the epilogue are bare where no other block works beside them.
  const double tile_bytes = 4.0 * tile.rows * tile.cols;
  const double ends = (2 * kLatency + 2 * tile_bytes / machine.l2_bytes) * (turns / at_once);
  double clocks = turns * static_cast<double>(steps_of_part) * step + ends;
  if (splits > 1)
    clocks +=
        2 * kLatency + 2 * tile_bytes * static_cast<double>(blocks) / multiprocessors / machine.l2_bytes;
  const double read = 2.0 * static_cast<double>(k) *
                      (static_cast<double>(m) * tile.x_parts + static_cast<double>(n) * tile.w_parts);
  clocks = std::max(clocks, read / multiprocessors / machine.memory_bytes);
  return clocks / machine.clocks + kLaunchMicroseconds + (splits > 1 ? kExtraLaunchMicroseconds : 0);
}

// Whether sizes and the GPU are such that the kernels can run at all.
constexpr bool mma_fits(int64_t m, int64_t n, int64_t k, int arch) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return arch >= 80 && std::max({m, n, k}) <= kMost;
}

constexpr MmaPlan plan_mma(const MmaTileShape& tile, int64_t m, int64_t n, int64_t k, int arch,
                           int multiprocessors) {
  const int64_t steps = (k + tile.depth - 1) / tile.depth;
  const int64_t partial_bytes = mma_tiles(tile, m, n) * tile.rows * tile.cols * 4;
  MmaPlan best = {1, mma_microseconds(tile, m, n, k, 1, arch, multiprocessors)};
  for (int splits = 2; splits <= kMostSplits; ++splits) {
    if (steps / splits < kLeastSteps || partial_bytes * splits > kMostPartialBytes) break;
    const double microseconds = mma_microseconds(tile, m, n, k, splits, arch, multiprocessors);
    if (microseconds < best.microseconds) best = {splits, microseconds};
  }
  return best;
}

}  // namespace kotoba::cuda
