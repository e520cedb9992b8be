// mma.sync, ldmatrix and cp.async against plain loops, and what goes wrong when they are used wrongly.
#include <cmath>

#include "../../ptx.cuh"
#include "testing.h"

namespace kotoba::sim {
namespace {

namespace ptx = cuda::ptx;
using testing::DeviceArray;
using testing::expect;
using testing::expect_fault;
using testing::fault_of;

uint16_t bf16_of(float v) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16); }

std::vector<uint16_t> small_bf16(size_t count, int seed) {
  std::vector<uint16_t> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = bf16_of(static_cast<float>((i * 37 + seed) % 29) - 14);
  return values;
}

// out [16, 8] = a [16, 16] · b [8, 16]ᵀ, through shared memory, with or without a wait for the copies.
template <bool kWait>
void multiply_tile(float* out, const uint16_t* a, const uint16_t* b) {
  struct alignas(16) Tile {
    uint16_t at[16][16];
  };
  KOTOBA_SHARED(a_tile, Tile);
  KOTOBA_SHARED(b_tile, Tile);
  const int lane = static_cast<int>(threadIdx.x);
  ptx::cp_async_16(&a_tile.at[lane / 2][lane % 2 * 8], a + lane * 8);
  ptx::cp_async_16(&b_tile.at[lane / 2][lane % 2 * 8], b + lane % 16 * 8, lane < 16);
  ptx::cp_async_commit();
  if (kWait) ptx::cp_async_wait<0>();
  __syncwarp();
  uint32_t a_part[4], b_parts[4];
  ptx::ldmatrix_x4(a_part, &a_tile.at[lane % 16][lane / 16 * 8]);
  // Matrices: columns 0…7 with k 0…7, the same with k 8…15, then rows 8…15 that hold zeros.
  ptx::ldmatrix_x4(b_parts, &b_tile.at[lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]);
  const uint32_t b_part[2] = {b_parts[0], b_parts[1]};
  float sum[4] = {};
  ptx::mma_m16n8k16_bf16(sum, a_part, b_part);
  for (int r = 0; r < 4; ++r) out[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = sum[r];
}

bool multiplies(void (*kernel)(float*, const uint16_t*, const uint16_t*)) {
  const auto a = small_bf16(256, 1), b = small_bf16(128, 5);
  const DeviceArray<uint16_t> a_device(a), b_device(b);
  const DeviceArray<float> out(std::vector<float>(128, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"multiply", 1, 32}, kernel, out.get(), a_device.get(), b_device.get());
  const std::vector<float> got = out.back(stream);
  for (int row = 0; row < 16; ++row)
    for (int col = 0; col < 8; ++col) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += bf16_to_f32(a[row * 16 + k]) * bf16_to_f32(b[col * 16 + k]);
      if (got[row * 8 + col] != sum) return false;
    }
  return true;
}

SIM_TEST(mma_ldmatrix_and_cp_async_multiply) { expect(multiplies(multiply_tile<true>), "the product"); }

SIM_TEST(a_missing_cp_async_wait_gives_a_wrong_result) {
  expect(!multiplies(multiply_tile<false>), "tiles that are not there yet");
}

// A group too few is waited for: kPending 1 instead of 0 for the newest of two.
template <int kPending>
void copy_two_groups(float* out, const float* x) {
  struct alignas(16) Line {
    float at[8];
  };
  KOTOBA_SHARED(line, Line);
  ptx::cp_async_16(&line.at[0], x);
  ptx::cp_async_commit();
  ptx::cp_async_16(&line.at[4], x + 4);
  ptx::cp_async_commit();
  ptx::cp_async_wait<kPending>();
  for (int i = 0; i < 8; ++i) out[i] = line.at[i];
}

SIM_TEST(cp_async_wait_leaves_the_newest_groups_open) {
  const DeviceArray<float> x({0, 1, 2, 3, 4, 5, 6, 7}), out(std::vector<float>(8, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"copy", 1, 1}, copy_two_groups<0>, out.get(), x.get());
  expect(out.back(stream)[7] == 7, "both groups");
  cuda::launch(stream, {"copy", 1, 1}, copy_two_groups<1>, out.get(), x.get());
  const std::vector<float> got = out.back(stream);
  expect(got[3] == 3 && std::isnan(got[4]), "only the older group");
}

void transpose_tile(uint16_t* out, const uint16_t* x) {
  struct alignas(16) Tile {
    uint16_t at[32][8];
  };
  KOTOBA_SHARED(tile, Tile);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) tile.at[lane][i] = x[lane * 8 + i];
  __syncwarp();
  uint32_t parts[4];
  ptx::ldmatrix_x4_trans(parts, &tile.at[lane][0]);
  for (int m = 0; m < 4; ++m)
    for (int half = 0; half < 2; ++half)
      out[(m * 8 + lane / 4) * 8 + lane % 4 * 2 + half] = static_cast<uint16_t>(parts[m] >> 16 * half);
}

SIM_TEST(ldmatrix_trans_turns_every_matrix) {
  const auto x = small_bf16(256, 3);
  const DeviceArray<uint16_t> in(x), out(std::vector<uint16_t>(256, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"turn", 1, 32}, transpose_tile, out.get(), in.get());
  const auto got = out.back(stream);
  for (int m = 0; m < 4; ++m)
    for (int r = 0; r < 8; ++r)
      for (int c = 0; c < 8; ++c) expect(got[(m * 8 + r) * 8 + c] == x[(m * 8 + c) * 8 + r], "the transpose");
}

void copy_misaligned(const float* x) {
  KOTOBA_SHARED(line, float[16]);
  ptx::cp_async_16(&line[1], x);
}

SIM_TEST(cp_async_to_a_misaligned_address_is_a_fault) {
  const DeviceArray<float> x(std::vector<float>(16, 0));
  expect_fault(fault_of(copy_misaligned, 1, 1, 0, x.get()), "not 16-aligned");
}

}  // namespace
}  // namespace kotoba::sim
