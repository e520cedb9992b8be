// Which tiles of a matmul's output a persistent block sums, and over which steps of k. Tiles that fill whole
// waves of blocks have one block each; those of the last wave, which would leave most blocks idle, are
// divided along k ("stream-K", arXiv:2301.03598, in equal parts), and their parts are added in order.
#pragma once

#include "runtime.h"

namespace kotoba::cuda {

// A piece of work: steps [first_step, end_step) of the tile at (row, col), in tiles.
struct MatmulUnit {
  int row, col;
  int first_step, end_step;
  int divided;  // index among the divided tiles; -1: all steps of the tile are here
  int part;     // of the divided tile
};

struct MatmulSchedule {
  int row_tiles, col_tiles;
  int steps;  // of k, to a tile
  int whole;  // tiles that are not divided, the first ones
  int parts;  // units to each of the others
  int group;  // rows of tiles that are walked together

  __host__ __device__ int divided() const { return row_tiles * col_tiles - whole; }
  __host__ __device__ int units() const { return whole + divided() * parts; }

  // Blocks take unit blockIdx.x, then every gridDim.x-th. Those that run at one time are near each other in
  // both directions, so that most of what they read is in the L2 cache: group by group of rows, each column
  // by column.
  __device__ __forceinline__ MatmulUnit unit(int index) const {
    const bool is_whole = index < whole;
    const int rest = is_whole ? 0 : index - whole;
    const int tile = is_whole ? index : whole + rest / parts, part = rest % parts;
    const int first_row = tile / (group * col_tiles) * group, in_group = tile - first_row * col_tiles;
    const int rows = row_tiles - first_row < group ? row_tiles - first_row : group;
    MatmulUnit unit = {first_row + in_group % rows, in_group / rows, 0, steps, -1, 0};
    if (is_whole) return unit;
    unit.divided = rest / parts;
    unit.part = part;
    unit.first_step = steps * part / parts;
    unit.end_step = steps * (part + 1) / parts;
    return unit;
  }
};

// Microseconds that one block, alone on its multiprocessor, needs for a tile: estimates.
struct TileTimes {
  double step;    // of k
  double finish;  // the epilogue
  double part;    // writing, or reading again, what one part of a divided tile has summed
};

struct MatmulTile {
  int rows, cols, depth;  // depth: of a step
};

struct MatmulPlan {
  MatmulSchedule schedule;
  int blocks;
  double microseconds;
};

// The plan for [m, k] · [n, k]ᵀ that is done first; all sizes are positive. `bytes`: what is read and written
// at least.
MatmulPlan plan_matmul(int64_t m, int64_t n, int64_t k, const MatmulTile& tile, const TileTimes& times,
                       int64_t bytes, int multiprocessors);

}  // namespace kotoba::cuda
