// The schedule of persistent matmul kernels: nothing is left out, nothing is done twice.
#include "../../matmul_schedule.h"

#include <map>

#include "testing.h"

namespace kotoba::sim {
namespace {

using cuda::MatmulPlan;
using cuda::MatmulUnit;
using testing::expect;

// How often each step of each tile comes up.
void expect_every_step_once(const MatmulPlan& plan, const std::string& what) {
  const cuda::MatmulSchedule& s = plan.schedule;
  std::vector<int> times(static_cast<size_t>(s.row_tiles) * s.col_tiles * s.steps);
  std::map<int, std::pair<int, int>> divided;  // tiles by their index
  for (int i = 0; i < s.units(); ++i) {
    const MatmulUnit unit = s.unit(i);
    expect(unit.row >= 0 && unit.row < s.row_tiles && unit.col >= 0 && unit.col < s.col_tiles,
           what + ": a tile of the matrix");
    expect(unit.first_step < unit.end_step, what + ": some steps in every unit");
    for (int step = unit.first_step; step < unit.end_step; ++step)
      ++times[(static_cast<size_t>(unit.row) * s.col_tiles + unit.col) * s.steps + step];
    if (unit.divided < 0) continue;
    expect(unit.divided < s.divided() && unit.part < s.parts, what + ": a part of a divided tile");
    const auto [known, is_new] = divided.try_emplace(unit.divided, unit.row, unit.col);
    expect(known->second == std::pair(unit.row, unit.col), what + ": one tile for all of its parts");
  }
  for (const int count : times) expect(count == 1, what + ": every step of every tile once");
}

SIM_TEST(every_step_of_every_tile_is_in_one_unit) {
  bool divides = false, mixes = false;
  for (const int multiprocessors : {1, 4, 132})
    for (const int64_t m : {1, 128, 129, 700, 4608})
      for (const int64_t n : {8, 256, 3072, 5000})
        for (const int64_t k : {8, 64, 1000, 12288})
          for (const int cols : {64, 192, 256}) {
            const MatmulPlan plan =
                cuda::plan_matmul(m, n, k, {128, cols, 64}, {0.65, 1, 1.5}, 1, multiprocessors);
            expect_every_step_once(plan, std::to_string(m) + " x " + std::to_string(n) + " x " +
                                             std::to_string(k) + ", " + std::to_string(cols) + " columns");
            divides |= plan.schedule.divided() > 0;
            mixes |= plan.schedule.divided() > 0 && plan.schedule.whole > 0;
          }
  expect(divides && mixes, "plans with divided tiles, and with both kinds, among them");
}

// Ten tiles on four multiprocessors: two waves, then two tiles that leave half of them idle.
SIM_TEST(only_the_last_wave_is_divided) {
  const MatmulPlan plan = cuda::plan_matmul(1280, 256, 8192, {128, 256, 64}, {1, 1, 1}, 1, 4);
  expect(plan.schedule.whole == 8 && plan.schedule.parts == 2 && plan.blocks == 4, "8 tiles and 2 in halves");
  const MatmulPlan full = cuda::plan_matmul(1024, 256, 8192, {128, 256, 64}, {1, 1, 1}, 1, 4);
  expect(full.schedule.whole == 8 && full.schedule.divided() == 0, "8 tiles");
}

}  // namespace
}  // namespace kotoba::sim
