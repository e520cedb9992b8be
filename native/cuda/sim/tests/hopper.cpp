// TMA, mbarrier and wgmma against plain loops, and the waits that must not be left out.
#include "../../ptx.cuh"
#include "testing.h"

namespace kotoba::sim {
namespace {

namespace ptx = cuda::ptx;
using testing::DeviceArray;
using testing::expect;
using testing::expect_fault;
using testing::fault_of;

constexpr int kRows = 64, kCols = 64, kSteps = 3, kDepth = 64;  // of out, of k: kSteps * kDepth

enum Bug { kNone, kNoFullWait, kWrongParity, kNoWgmmaWait, kNoEmptyWait };

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
      ptx::mbarrier_arrive_expect(&full[stage], 2 * kTileBytes);
      ptx::tma_load_2d(a_tile(stage), &a, &full[stage], step * kDepth, 0);
      ptx::tma_load_2d(b_tile(stage), &b, &full[stage], step * kDepth, 0);
    }
    return;
  }
  if (thread > 128) return;
  float sum[kCols / 2] = {};
  for (int step = 0; step < kSteps; ++step) {
    const int stage = step % 2, round = step / 2;
    if (kBug != kNoFullWait) ptx::mbarrier_wait(&full[stage], round & 1);
    ptx::wgmma_fence();
    for (int k = 0; k < kDepth; k += 16)
      ptx::wgmma_bf16<kCols>(sum, ptx::wgmma_descriptor(a_tile(stage) + 2 * k),
                             ptx::wgmma_descriptor(b_tile(stage) + 2 * k), true);
    ptx::wgmma_commit();
    if (kBug != kNoWgmmaWait) ptx::wgmma_wait<0>();
    if (thread == 0) ptx::mbarrier_arrive(&empty[stage]);
  }
  const int lane = thread % 32;
  for (int r = 0; r < kCols / 2; ++r) {
    const int row = thread / 32 * 16 + lane / 4 + r / 2 % 2 * 8, col = r / 4 * 8 + lane % 4 * 2 + r % 2;
    out[row * kCols + col] = sum[r];
  }
}

float number(int row, int k, int seed) { return static_cast<float>((row * 7 + k * 13 + seed) % 11 - 5); }

// The fault of a run, "wrong" for a wrong result, empty for the right one. `a` has only 60 of the 64 rows.
template <Bug kBug>
std::string outcome() {
  constexpr int kK = kSteps * kDepth, kPresent = 60;
  std::vector<uint16_t> a(kPresent * kK), b(kCols * kK);
  for (size_t i = 0; i < b.size(); ++i) {
    const int row = static_cast<int>(i) / kK, k = static_cast<int>(i) % kK;
    const auto bits = [](float v) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16); };
    if (row < kPresent) a[i] = bits(number(row, k, 1));
    b[i] = bits(number(row, k, 4));
  }
  const DeviceArray<uint16_t> a_device(a), b_device(b);
  const DeviceArray<float> out(std::vector<float>(kRows * kCols, -1));
  const auto map = [](const uint16_t* data, int rows) {
    return cuda::TensorMap{reinterpret_cast<const std::byte*>(data), rows, kK, kK * 2, kRows, kDepth, 2};
  };
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
