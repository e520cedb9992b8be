// Kernels with the bugs that GPUs forgive until they do not: the simulator has to catch every one of them.
#include <cmath>

#include "testing.h"

namespace kotoba::sim {
namespace {

using testing::DeviceArray;
using testing::expect;
using testing::expect_fault;
using testing::fault_of;

template <bool kBarrier>
void reverse_in_shared(float* out, const float* x) {
  KOTOBA_SHARED(line, float[128]);
  line[threadIdx.x] = x[threadIdx.x];
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = line[127 - threadIdx.x];
}

bool reverses(void (*kernel)(float*, const float*)) {
  std::vector<float> x(128);
  for (int i = 0; i < 128; ++i) x[i] = static_cast<float>(i);
  const DeviceArray<float> in(x), out(std::vector<float>(128, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"reverse", 1, 128}, kernel, out.get(), in.get());
  const std::vector<float> got = out.back(stream);
  for (int i = 0; i < 128; ++i)
    if (got[i] != x[127 - i]) return false;
  return true;
}

SIM_TEST(a_missing_barrier_gives_a_wrong_result) {
  expect(reverses(reverse_in_shared<true>), "the right kernel to work");
  expect(!reverses(reverse_in_shared<false>), "the kernel without its barrier to read too early");
}

// Thread 0 may overwrite `value` before the other warps have read it.
template <bool kBarrier>
void rewrite_shared(float* out) {
  KOTOBA_SHARED(value, float);
  float sum = 0;
  for (int step = 0; step < 4; ++step) {
    if (threadIdx.x == 0) value = static_cast<float>(step);
    __syncthreads();
    sum += __shfl_xor_sync(0xffffffffu, value, 1);
    if (kBarrier) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

bool all_see_every_value(void (*kernel)(float*)) {
  const DeviceArray<float> out(std::vector<float>(128, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"rewrite", 1, 128}, kernel, out.get());
  for (const float sum : out.back(stream))
    if (sum != 0 + 1 + 2 + 3) return false;
  return true;
}

SIM_TEST(a_warp_that_runs_ahead_of_a_missing_barrier_gives_a_wrong_result) {
  expect(all_see_every_value(rewrite_shared<true>), "the right kernel to work");
  expect(!all_see_every_value(rewrite_shared<false>), "a warp to overwrite what others still read");
}

void write_at(float* data, int64_t index) { data[index] = 1; }
void read_at(float* data, int64_t index) { data[0] = data[index]; }

SIM_TEST(a_write_one_past_the_end_is_a_fault) {
  for (const size_t count : {1, 7, 16, 1000, 1024}) {
    const DeviceArray<float> x(std::vector<float>(count, 0));
    const auto last = static_cast<int64_t>(count) - 1;
    expect(fault_of(write_at, 1, 1, 0, x.get(), last).empty(), "the last element to be writable");
    expect_fault(fault_of(write_at, 1, 1, 0, x.get(), last + 1), "0 bytes past the end");
  }
}

SIM_TEST(accesses_far_outside_are_faults_that_name_the_buffer) {
  const DeviceArray<float> x(std::vector<float>(1024, 0));
  expect_fault(fault_of(write_at, 1, 1, 0, x.get(), int64_t{1024 + 16}),
               "write to 64 bytes past the end of a buffer of 4096 bytes");
  expect_fault(fault_of(read_at, 1, 1, 0, x.get(), int64_t{-4}), "read of 16 bytes before the start");
  expect_fault(fault_of(read_at, 1, 1, 0, static_cast<float*>(nullptr), int64_t{0}), "no device buffer");
}

SIM_TEST(what_lies_behind_a_buffer_reads_as_nan) {
  const DeviceArray<float> x(std::vector<float>(3, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"read", 1, 1}, read_at, x.get(), int64_t{3});
  expect(std::isnan(x.back(stream)[0]), "a NaN");
}

SIM_TEST(use_after_free_is_a_fault) {
  float* data = nullptr;
  {
    const DeviceArray<float> x(std::vector<float>(64, 0));
    data = x.get();
  }
  expect_fault(fault_of(read_at, 1, 1, 0, data, int64_t{1}), "a freed buffer of 256 bytes");
}

SIM_TEST(work_given_before_a_free_still_finds_its_memory) {
  const cuda::Stream stream;
  const DeviceArray<float> out(std::vector<float>(1, 0));
  {
    const DeviceArray<float> x(std::vector<float>(64, 0));
    cuda::launch(stream, {"write", 1, 1}, write_at, x.get(), int64_t{5});
  }
  stream.wait();
}

void read_misaligned(float* out, const unsigned char* bytes) {
  out[0] = *reinterpret_cast<const float*>(bytes + 1);
}

SIM_TEST(a_misaligned_access_is_a_fault) {
  const DeviceArray<float> out(std::vector<float>(4, 0));
  expect_fault(
      fault_of(read_misaligned, 1, 1, 0, out.get(), reinterpret_cast<const unsigned char*>(out.get())),
      "misaligned load, 1 bytes past a multiple of 4");
}

void barrier_for_some(int threads) {
  if (static_cast<int>(threadIdx.x) < threads) __syncthreads();
}

SIM_TEST(a_barrier_that_not_all_threads_reach_is_a_deadlock) {
  expect(fault_of(barrier_for_some, 2, 64, 0, 64).empty(), "a barrier for all to be passed");
  expect_fault(fault_of(barrier_for_some, 2, 64, 0, 63), "waits in __syncthreads");
}

void different_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

SIM_TEST(threads_at_different_barriers_are_a_fault) {
  expect_fault(fault_of(different_barriers, 1, 64, 0), "threads of one group wait in lines");
}

void shuffle_for_some(float* out, int lanes) {
  if (static_cast<int>(threadIdx.x) < lanes) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

SIM_TEST(a_shuffle_without_all_its_lanes_is_a_deadlock) {
  const DeviceArray<float> out(std::vector<float>(32, 0));
  expect(fault_of(shuffle_for_some, 1, 32, 0, out.get(), 32).empty(), "a whole warp to work");
  expect_fault(fault_of(shuffle_for_some, 1, 32, 0, out.get(), 31), "waits in __shfl_xor_sync");
}

void shuffle_half_a_warp() {
  if (threadIdx.x < 16) __shfl_xor_sync(0xffffu, 1.0f, 1);
}

SIM_TEST(a_shuffle_of_a_part_of_a_warp_is_a_fault) {
  expect_fault(fault_of(shuffle_half_a_warp, 1, 32, 0), "the mask leaves out lanes");
}

void index_shared(float* out, int index) {
  KOTOBA_SHARED(line, float[8]);
  line[index] = 1;
  out[0] = line[0];
}

SIM_TEST(an_index_outside_of_a_shared_array_is_a_fault) {
  const DeviceArray<float> out(std::vector<float>(1, 0));
  expect(fault_of(index_shared, 1, 1, 0, out.get(), 7).empty(), "index 7 of 8 to work");
  expect_fault(fault_of(index_shared, 1, 1, 0, out.get(), 8), "index 8 outside of an array");
}

void overrun_shared(float* out, int index) {
  KOTOBA_SHARED(line, float[8]);
  float* at = line;
  at[index] = 1;
  out[0] = at[index];
}

SIM_TEST(a_write_past_a_shared_variable_through_a_pointer_is_a_fault) {
  const DeviceArray<float> out(std::vector<float>(1, 0));
  expect_fault(fault_of(overrun_shared, 1, 1, 0, out.get(), 9),
               "past the end of a shared variable of 32 bytes");
}

void index_dynamic(float* out, int index) {
  KOTOBA_DYNAMIC_SHARED(bytes);
  reinterpret_cast<float*>(bytes)[index] = 1;
  out[0] = 1;
}

SIM_TEST(dynamic_shared_memory_ends_where_it_ends) {
  const DeviceArray<float> out(std::vector<float>(1, 0));
  expect(fault_of(index_dynamic, 1, 1, 1024, out.get(), 255).empty(), "the last float to work");
  expect_fault(fault_of(index_dynamic, 1, 1, 1024, out.get(), 256), "outside of the block's shared memory");
  expect_fault(fault_of(index_dynamic, 1, 1, 230 << 10, out.get(), 0), "more than an SM has");
}

void read_unwritten_shared(float* out) {
  KOTOBA_SHARED(line, float[4]);
  KOTOBA_DYNAMIC_SHARED(bytes);
  float* dynamic = reinterpret_cast<float*>(bytes);
  out[2 * blockIdx.x] = line[0];
  out[2 * blockIdx.x + 1] = dynamic[0];
  line[0] = dynamic[0] = 1;
}

SIM_TEST(shared_memory_starts_as_nan_in_every_block) {
  const DeviceArray<float> out(std::vector<float>(6, 0));
  const cuda::Stream stream;
  cuda::launch(stream, {"read", 3, 1, 1024}, read_unwritten_shared, out.get());
  for (const float v : out.back(stream)) expect(std::isnan(v), "a NaN");
}

}  // namespace
}  // namespace kotoba::sim
