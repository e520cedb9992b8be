#include "matmul_schedule.h"

#include <algorithm>
#include <cmath>

namespace kotoba::cuda {
namespace {

constexpr int kMostParts = 16;
constexpr int64_t kMostPartialBytes = int64_t{64} << 20;
constexpr int kLeastSteps = 4;         // to a part
constexpr double kStart = 3;           // microseconds from the launch to the first product
constexpr double kDividing = 2;        // for clearing the counts, and for the parts to find each other
constexpr double kBytesPerUs = 4.2e6;  // of device memory

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// Rows of tiles that `blocks` neighbours share, so that they read as many rows of x as of w.
int square_group(const MatmulTile& tile, int blocks) {
  const double rows = std::sqrt(static_cast<double>(blocks) * tile.cols / tile.rows);
  return std::max(1, static_cast<int>(rows + 0.5));
}

// Microseconds of the tiles that are not whole, each in `parts`.
double divided_time(const MatmulSchedule& s, int parts, const TileTimes& times, int blocks) {
  const int waves = ceil_div(int64_t{s.divided()} * parts, blocks);
  const double sums = waves * ceil_div(s.steps, parts) * times.step;
  // The part that comes last adds up the others.
  return sums + times.finish + (parts > 1 ? kDividing + (1 + parts) * times.part : 0);
}

}  // namespace

MatmulPlan plan_matmul(int64_t m, int64_t n, int64_t k, const MatmulTile& tile, const TileTimes& times,
                       int64_t bytes, int multiprocessors) {
  MatmulSchedule s = {};
  s.row_tiles = ceil_div(m, tile.rows);
  s.col_tiles = ceil_div(n, tile.cols);
  s.steps = ceil_div(k, tile.depth);
  s.parts = 1;
  s.group = square_group(tile, multiprocessors);
  const int tiles = s.row_tiles * s.col_tiles, waves = tiles / multiprocessors;
  s.whole = waves * multiprocessors;
  double rest = s.divided() > 0 ? divided_time(s, 1, times, multiprocessors) : 0;
  const int64_t part_bytes = int64_t{4} * tile.rows * tile.cols * s.divided();
  for (int parts = 2; parts <= kMostParts && s.divided() > 0; ++parts) {
    if (s.steps < parts * kLeastSteps || parts * part_bytes > kMostPartialBytes) break;
    const double time = divided_time(s, parts, times, multiprocessors);
    if (time >= rest) continue;
    rest = time;
    s.parts = parts;
  }
  if (s.parts == 1) s.whole = tiles;
  const double sums = waves * (s.steps * times.step + times.finish) + rest;
  const double reads = static_cast<double>(bytes) / kBytesPerUs;
  return {s, std::min(s.units(), multiprocessors), kStart + std::max(sums, reads)};
}

}  // namespace kotoba::cuda
