// Which tile and how many parts of k the mma.sync matmul takes: the table of choices at the models' shapes.
#include "../../mma_plan.h"

#include <cstdlib>

#include "../../mma_finish.cuh"
#include "testing.h"

namespace kotoba::sim {
namespace {

using namespace cuda;
using testing::expect;

struct Choice {
  MmaTileShape tile;
  MmaPlan plan;
  std::string name;
};

// The cheapest on a GPU with 132 multiprocessors.
Choice choose(int64_t m, int64_t n, int64_t k, int arch) {
  Choice best = {{}, {1, 1e30}, ""};
  for (const MmaTileShape& tile : {DenseTile128x256::shape(), DenseTile128x128::shape(),
                                   DenseTile128x64::shape(), DenseTile64x64::shape()}) {
    const MmaPlan plan = plan_mma(tile, m, n, k, arch, 132);
    if (plan.microseconds < best.plan.microseconds)
      best = {tile, plan, std::to_string(tile.rows) + "x" + std::to_string(tile.cols)};
  }
  return best;
}

// How much of the multiprocessors' time goes into tiles, as far as whole tiles tell.
double wave_efficiency(const Choice& c, int64_t m, int64_t n) {
  const int64_t blocks = mma_tiles(c.tile, m, n) * c.plan.splits;
  return static_cast<double>(blocks) / static_cast<double>((blocks + 131) / 132 * 132);
}

SIM_TEST(mma_plan_fills_the_multiprocessors) {
  struct Shape {
    const char* what;
    int64_t m, n, k;
  };
  const Shape shapes[] = {{"T5 attention, 512 tokens", 512, 4096, 4096},
                          {"T5 wi", 512, 10240, 4096},
                          {"T5 wi_0 and wi_1", 512, 20480, 4096},
                          {"T5 wo", 512, 4096, 10240},
                          {"Flux text qkv", 512, 9216, 3072},
                          {"Flux text mlp out", 512, 3072, 12288},
                          {"Flux image mlp", 4096, 12288, 3072},
                          {"Flux single linear1", 4608, 21504, 3072},
                          {"Flux single linear2", 4608, 3072, 15360},
                          {"CLIP-L, 77 tokens", 77, 3072, 768},
                          {"T5, 77 tokens", 77, 4096, 4096},
                          {"32 rows", 32, 4096, 4096},
                          {"square", 8192, 8192, 8192}};
  for (const int arch : {80, 90})
    for (const Shape& s : shapes) {
      const Choice c = choose(s.m, s.n, s.k, arch);
      const double efficiency = wave_efficiency(c, s.m, s.n);
      if (std::getenv("KOTOBA_PRINT_PLANS"))
        std::printf("sm_%d %-26s %5ld x %5ld x %5ld: %-8s k in %2d parts, %7.1f us, waves %.2f\n", arch,
                    s.what, static_cast<long>(s.m), static_cast<long>(s.n), static_cast<long>(s.k),
                    c.name.c_str(), c.plan.splits, c.plan.microseconds, efficiency);
      expect(efficiency >= 0.7, std::string("waves of 0.7 at least for ") + s.what + ", got " +
                                    std::to_string(efficiency) + " with " + c.name);
    }
}

SIM_TEST(mma_plan_takes_large_tiles_for_large_problems_and_cuts_k_for_few_rows) {
  expect(choose(8192, 8192, 8192, 90).tile.rows == 128, "128 rows for a large square");
  expect(choose(8192, 8192, 8192, 90).plan.splits == 1, "a large square in one part");
  const Choice few = choose(32, 4096, 4096, 90);
  expect(few.tile.rows == 64, "the lowest tile for 32 rows, got " + few.name);
  expect(few.plan.splits > 1, "k in parts for 32 rows");
  expect(choose(77, 1280, 5120, 90).plan.splits > 1, "k in parts for 77 rows");
}

SIM_TEST(mma_plan_keeps_the_parts_of_k_worth_their_sum) {
  for (const int64_t k : {8, 64, 136, 512, 4096, 100000})
    for (const int64_t m : {1, 77, 512, 100000}) {
      const MmaPlan plan = plan_mma(DenseTile64x64::shape(), m, 640, k, 80, 108);
      const int64_t steps = (k + 63) / 64;
      expect(plan.splits >= 1 && plan.splits <= kMostSplits, "1 … 16 parts");
      expect(plan.splits == 1 || steps / plan.splits >= kLeastSteps, "no part shorter than 4 steps");
      expect(plan.splits == 1 ||
                 mma_tiles(DenseTile64x64::shape(), m, 640) * plan.splits * 64 * 64 * 4 <= kMostPartialBytes,
             "sums of parts within their memory");
    }
}

}  // namespace
}  // namespace kotoba::sim
