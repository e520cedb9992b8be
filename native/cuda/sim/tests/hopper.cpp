// TMA, mbarrier and wgmma against plain loops, and the waits that must not be left out.
#include "../../ptx.cuh"
#include "../../tensor_map.h"
#include "testing.h"

namespace kotoba::sim {
namespace {

namespace ptx = cuda::ptx;
using testing::DeviceArray;
using testing::expect;
using testing::expect_fault;
using testing::fault_of;

constexpr int kRows = 64, kCols = 64, kSteps = 3, kDepth = 64;  // of out, of k: kSteps * kDepth

enum Bug {
  kNone,
  kNoFullWait,
  kWrongParity,
  kNoWgmmaWait,
  kNoEmptyWait,
  kNoRelease,
  kEarlyRelease,
  kTooFewBytes,
  kNoSwizzle,
  kWrongStage
};

constexpr int kTileBytes = kRows * kDepth * 2;

// out [64, 64] = a [64, 192] · b [64, 192]ᵀ through a ring of two stages: thread 128 loads, threads 0…127
// multiply.
template <Bug kBug>
void multiply_in_ring(float* out, cuda::TensorMap a, cuda::TensorMap b) {
  KOTOBA_DYNAMIC_SHARED(tiles);
  KOTOBA_SHARED(full, uint64_t[2]);
  KOTOBA_SHARED(empty, uint64_t[2]);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0)
    for (int s = 0; s < 2; ++s) {
      ptx::mbarrier_init(&full[s], 1);
      ptx::mbarrier_init(&empty[s], 1);
    }
  __syncthreads();
  const auto a_tile = [&](int stage) { return tiles + stage * 2 * kTileBytes; };
  const auto b_tile = [&](int stage) { return tiles + stage * 2 * kTileBytes + kTileBytes; };
  if (thread == 128) {
    for (int step = 0; step < kSteps; ++step) {
      const int stage = step % 2, round = step / 2;
      if (kBug != kNoEmptyWait)
        ptx::mbarrier_wait(&empty[stage], (round & 1) ^ (kBug == kWrongParity ? 0 : 1));
      ptx::mbarrier_arrive_expect(&full[stage], kBug == kTooFewBytes ? kTileBytes : 2 * kTileBytes);
      ptx::tma_load_2d(a_tile(stage), &a, &full[stage], step * kDepth, 0);
      ptx::tma_load_2d(b_tile(stage), &b, &full[stage], step * kDepth, 0);
    }
    return;
  }
  if (thread > 128) return;
  float sum[kCols / 2] = {};
  const uint64_t layout = kBug == kNoSwizzle ? ~(uint64_t{3} << 62) : ~uint64_t{0};
  for (int step = 0; step < kSteps; ++step) {
    const int stage = (step + (kBug == kWrongStage)) % 2, round = step / 2;
    if (kBug != kNoFullWait) ptx::mbarrier_wait(&full[stage], round & 1);
    ptx::wgmma_fence();
    for (int k = 0; k < kDepth; k += 16)
      ptx::wgmma_bf16<kCols>(sum, ptx::wgmma_descriptor(a_tile(stage) + 2 * k) & layout,
                             ptx::wgmma_descriptor(b_tile(stage) + 2 * k) & layout, true);
    ptx::wgmma_commit();
    if (kBug == kEarlyRelease && thread == 0) ptx::mbarrier_arrive(&empty[stage]);
    if (kBug != kNoWgmmaWait) ptx::wgmma_wait<0>();
    if (kBug != kNoRelease && kBug != kEarlyRelease && thread == 0) ptx::mbarrier_arrive(&empty[stage]);
  }
  const int lane = thread % 32;
  for (int r = 0; r < kCols / 2; ++r) {
    const int row = thread / 32 * 16 + lane / 4 + r / 2 % 2 * 8, col = r / 4 * 8 + lane % 4 * 2 + r % 2;
    out[row * kCols + col] = sum[r];
  }
}

uint16_t bf16_of(float v) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16); }

float number(int row, int k, int seed) { return static_cast<float>((row * 7 + k * 13 + seed) % 11 - 5); }

// The fault of a run, "wrong" for a wrong result, empty for the right one. `a` has only 60 of the 64 rows.
template <Bug kBug>
std::string outcome() {
  constexpr int kK = kSteps * kDepth, kPresent = 60;
  std::vector<uint16_t> a(kPresent * kK), b(kCols * kK);
  for (size_t i = 0; i < b.size(); ++i) {
    const int row = static_cast<int>(i) / kK, k = static_cast<int>(i) % kK;
    if (row < kPresent) a[i] = bf16_of(number(row, k, 1));
    b[i] = bf16_of(number(row, k, 4));
  }
  const DeviceArray<uint16_t> a_device(a), b_device(b);
  const DeviceArray<float> out(std::vector<float>(kRows * kCols, -1));
  const auto map = [](const uint16_t* data, int rows) { return cuda::matrix_map(data, rows, kK, kK, kRows); };
  const std::string fault = fault_of(multiply_in_ring<kBug>, 1, 256, 4 * kTileBytes, out.get(),
                                     map(a_device.get(), kPresent), map(b_device.get(), kCols));
  if (!fault.empty()) return fault;
  const cuda::Stream stream;
  const std::vector<float> got = out.back(stream);
  for (int row = 0; row < kRows; ++row)
    for (int col = 0; col < kCols; ++col) {
      float sum = 0;
      for (int k = 0; k < kK && row < kPresent; ++k) sum += number(row, k, 1) * number(col, k, 4);
      if (got[row * kCols + col] != sum) return "wrong";
    }
  return "";
}

SIM_TEST(tma_mbarrier_and_wgmma_multiply) {
  const std::string got = outcome<kNone>();
  expect(got.empty(), "the product, got " + got);
}
SIM_TEST(a_missing_wait_for_tma_is_caught) {
  expect(!outcome<kNoFullWait>().empty(), "a fault or a wrong result");
}
SIM_TEST(a_wrong_mbarrier_parity_is_a_deadlock) { expect_fault(outcome<kWrongParity>(), "deadlock"); }
SIM_TEST(a_missing_wgmma_wait_is_caught) {
  expect(!outcome<kNoWgmmaWait>().empty(), "a fault or a wrong result");
}
SIM_TEST(a_stage_that_is_loaded_before_it_is_free_is_caught) {
  expect(!outcome<kNoEmptyWait>().empty(), "a fault or a wrong result");
}

SIM_TEST(a_stage_that_is_never_released_is_a_deadlock) { expect_fault(outcome<kNoRelease>(), "deadlock"); }
SIM_TEST(a_stage_that_is_released_before_its_products_are_done_is_caught) {
  expect(!outcome<kEarlyRelease>().empty(), "a fault or a wrong result");
}
SIM_TEST(a_barrier_that_expects_too_few_bytes_is_caught) {
  expect(!outcome<kTooFewBytes>().empty(), "a fault or a wrong result");
}
SIM_TEST(a_descriptor_without_the_swizzle_is_a_fault) {
  expect_fault(outcome<kNoSwizzle>(), "another layout than 128-byte swizzle");
}
SIM_TEST(a_consumer_that_is_a_stage_ahead_is_caught) {
  expect(!outcome<kWrongStage>().empty(), "a fault or a wrong result");
}

// ---- every width; a from shared memory or from registers

float factor(int row, int col) { return static_cast<float>((row * 5 + col * 3) % 13 - 6); }

template <int n>
void store_tile(float* out, const float (&d)[n / 2]) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  for (int r = 0; r < n / 2; ++r) {
    const int row = thread / 32 * 16 + lane / 4 + r / 2 % 2 * 8, col = r / 4 * 8 + lane % 4 * 2 + r % 2;
    out[row * n + col] = d[r];
  }
}

// out [64, n] = a [64, 64] · b [n, 64]ᵀ
template <int n>
void multiply_once(float* out, cuda::TensorMap a, cuda::TensorMap b) {
  KOTOBA_DYNAMIC_SHARED(tiles);
  KOTOBA_SHARED(full, uint64_t);
  std::byte* b_tile = tiles + 64 * 128;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&full, 1);
    ptx::mbarrier_arrive_expect(&full, (64 + n) * 128);
    ptx::tma_load_2d(tiles, &a, &full, 0, 0);
    ptx::tma_load_2d(b_tile, &b, &full, 0, 0);
  }
  __syncthreads();
  ptx::mbarrier_wait(&full, 0);
  float d[n / 2];
  for (int k = 0; k < 4; ++k)
    ptx::wgmma_bf16<n>(d, ptx::wgmma_descriptor(tiles) + 2 * k, ptx::wgmma_descriptor(b_tile) + 2 * k, k > 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  store_tile<n>(out, d);
}

// out [64, n] = a [64, 64] · b [64, n]: a in registers, b of heads [2, 64, n / 2] by a map of four
// dimensions.
template <int n>
void multiply_kn(float* out, const uint16_t* a, cuda::TensorMap b) {
  KOTOBA_DYNAMIC_SHARED(tiles);
  KOTOBA_SHARED(full, uint64_t);
  constexpr int kPanelBytes = 64 * 128;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&full, 1);
    ptx::mbarrier_arrive_expect(&full, n / 64 * kPanelBytes);
    for (int panel = 0; panel < n / 64; ++panel)
      ptx::tma_load_4d(tiles + panel * kPanelBytes, &b, &full, 0, panel, 0, 1);
  }
  __syncthreads();
  ptx::mbarrier_wait(&full, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32,
            row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  float d[n / 2];
  for (int k = 0; k < 4; ++k) {
    uint32_t pairs[4];
    for (int r = 0; r < 4; ++r) {
      const uint16_t* at = a + (row + r % 2 * 8) * 64 + k * 16 + lane % 4 * 2 + r / 2 * 8;
      pairs[r] = at[0] | uint32_t{at[1]} << 16;
    }
    ptx::wgmma_bf16_kn<n>(d, pairs, ptx::wgmma_descriptor_kn(tiles, kPanelBytes) + 128 * k, k > 0);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  store_tile<n>(out, d);
}

template <int n>
void expect_product(const DeviceArray<float>& out, const std::string& fault, int present) {
  expect(fault.empty(), "no fault, got " + fault);
  const cuda::Stream stream;
  const std::vector<float> got = out.back(stream);
  for (int row = 0; row < 64; ++row)
    for (int col = 0; col < n; ++col) {
      float sum = 0;
      for (int k = 0; k < present; ++k) sum += factor(row, k) * factor(col + 1, k);
      expect(got[row * n + col] == sum, "the product of width " + std::to_string(n));
    }
}

template <int n>
void check_width() {
  std::vector<uint16_t> a(64 * 64), b(n * 64);
  for (int i = 0; i < 64 * 64; ++i) a[i] = bf16_of(factor(i / 64, i % 64));
  for (int i = 0; i < n * 64; ++i) b[i] = bf16_of(factor(i / 64 + 1, i % 64));
  const DeviceArray<uint16_t> a_device(a), b_device(b);
  const DeviceArray<float> out(std::vector<float>(64 * n, -1));
  const std::string fault = fault_of(multiply_once<n>, 1, 128, (64 + n) * 128, out.get(),
                                     cuda::matrix_map(a_device.get(), 64, 64, 64, 64),
                                     cuda::matrix_map(b_device.get(), n, 64, 64, n));
  expect_product<n>(out, fault, 64);
}

SIM_TEST(wgmma_has_every_width) {
  check_width<64>();
  check_width<96>();
  check_width<128>();
  check_width<160>();
  check_width<192>();
  check_width<256>();
}

// b: [2 batches, 50 tokens, 2 heads, 64], of which the second batch is multiplied; its rows end at 50.
SIM_TEST(wgmma_multiplies_registers_with_a_tile_as_it_lies) {
  constexpr int kTokens = 50, kColumns = 128;
  std::vector<uint16_t> a(64 * 64), b(2 * kTokens * kColumns, bf16_of(100));
  for (int i = 0; i < 64 * 64; ++i) a[i] = bf16_of(factor(i / 64, i % 64));
  for (int i = 0; i < kTokens * kColumns; ++i)
    b[kTokens * kColumns + i] = bf16_of(factor(i % kColumns + 1, i / kColumns));
  const DeviceArray<uint16_t> a_device(a), b_device(b);
  const DeviceArray<float> out(std::vector<float>(64 * kColumns, -1));
  const cuda::TensorMap map = cuda::tensor_map(
      b_device.get(), {{64, 1, 64}, {2, 64, 1}, {kTokens, kColumns, 64}, {2, kTokens * kColumns, 1}});
  const std::string fault =
      fault_of(multiply_kn<kColumns>, 1, 128, 2 * 64 * 128, out.get(), a_device.get(), map);
  expect_product<kColumns>(out, fault, kTokens);
}

void load_a_box(cuda::TensorMap map, int at) {
  KOTOBA_DYNAMIC_SHARED(tile);
  KOTOBA_SHARED(full, uint64_t);
  ptx::mbarrier_init(&full, 1);
  ptx::mbarrier_arrive_expect(&full, 8 * 128);
  ptx::tma_load_2d(tile + at, &map, &full, 0, 0);
  ptx::mbarrier_wait(&full, 0);
}
SIM_TEST(a_bulk_copy_stays_inside_of_its_buffers) {
  const DeviceArray<uint16_t> x(std::vector<uint16_t>(8 * 64));
  const auto fault = [&](int rows, int at) {
    return fault_of(load_a_box, 1, 1, 1024, cuda::matrix_map(x.get(), rows, 64, 64, 8), at);
  };
  expect(fault(7, 0).empty() && fault(8, 0).empty(), "a box of the buffer to be copied");
  expect(fault_of(load_a_box, 1, 1, 1024, cuda::matrix_map(x.get() + 64, 8, 64, 64, 8), 0)
                 .find("TMA: read of") != std::string::npos,
         "a map that is longer than its buffer to be a fault");
  expect_fault(fault(8, 1024), "not in the block's dynamic shared memory");
  expect_fault(fault(8, 512), "not 1024-aligned");
}

void use_uninitialised_barrier() {
  KOTOBA_SHARED(barrier, uint64_t);
  ptx::mbarrier_arrive(&barrier);
}
SIM_TEST(an_mbarrier_must_be_initialised) {
  expect_fault(fault_of(use_uninitialised_barrier, 1, 1, 0), "was not initialised");
}

void arrive_too_often() {
  KOTOBA_SHARED(barrier, uint64_t);
  ptx::mbarrier_init(&barrier, 1);
  ptx::mbarrier_arrive_expect(&barrier, 16);
  ptx::mbarrier_arrive(&barrier);
}
SIM_TEST(more_arrivals_than_expected_are_a_fault) {
  expect_fault(fault_of(arrive_too_often, 1, 1, 0), "more arrivals");
}

}  // namespace
}  // namespace kotoba::sim
