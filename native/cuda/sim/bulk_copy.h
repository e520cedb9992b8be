// mbarrier and TMA: a barrier in shared memory that counts arrivals and bytes, and the bulk copies that
// signal it. Copies are done by nobody's thread and complete, in any order, when no thread can go on without
// one.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "block.h"
#include "memory.h"

#define KOTOBA_SM90A

namespace kotoba::cuda {

// A tensor of 16-bit numbers in global memory that TMA reads boxes of, with 128-byte swizzle. The simulator's
// form of CUtensorMap; ../tensor_map.h makes both. Dimensions that are not there have size 1.
struct TensorMap {
  const std::byte* data;
  int rank;
  int64_t size[4], stride_bytes[4];  // of each dimension, neighbouring numbers first
  int box[4];
};

}  // namespace kotoba::cuda

namespace kotoba::sim {

// The 8 bytes of an mbarrier.
struct Barrier {
  static constexpr uint64_t kValid = 0x2a;
  uint64_t phase : 1, valid : 7;         // `valid` tells an initialised barrier from poison
  uint64_t pending : 12, expected : 12;  // arrivals
  int64_t bytes : 32;                    // announced, still to come

  void end_phase_if_done() {
    if (pending != 0 || bytes != 0) return;
    phase ^= 1;
    pending = expected;
  }
};
static_assert(sizeof(Barrier) == 8);

inline Barrier& barrier_at(uint64_t* word, const char* what) {
  auto& barrier = *reinterpret_cast<Barrier*>(word);
  if (!current_block->in_shared(word)) fault(std::string(what) + ": the mbarrier is not in shared memory");
  if (barrier.valid != Barrier::kValid) fault(std::string(what) + ": the mbarrier was not initialised");
  return barrier;
}

// Where 128-byte swizzle puts a byte of a tile: bits 4…6 of an address are mixed with bits 7…9.
inline size_t swizzle_128(size_t offset) { return offset ^ (offset >> 7 & 7) << 4; }

using Place = std::array<int64_t, 4>;  // one index for each dimension

// Null outside of the tensor.
inline const std::byte* number_at(const cuda::TensorMap& map, const Place& at) {
  const std::byte* number = map.data;
  for (size_t d = 0; d < 4; ++d) {
    if (at[d] < 0 || at[d] >= map.size[d]) return nullptr;
    number += at[d] * map.stride_bytes[d];
  }
  return number;
}

// The box of `map` from `from` on, as the copy engine writes it; zeros where it leaves the tensor.
inline void copy_box(std::byte* shared, const cuda::TensorMap& map, const Place& from) {
  size_t offset = 0;
  Place p;
  for (p[3] = from[3]; p[3] < from[3] + map.box[3]; ++p[3])
    for (p[2] = from[2]; p[2] < from[2] + map.box[2]; ++p[2])
      for (p[1] = from[1]; p[1] < from[1] + map.box[1]; ++p[1])
        for (p[0] = from[0]; p[0] < from[0] + map.box[0]; ++p[0], offset += 2) {
          const std::byte* number = number_at(map, p);
          std::memset(shared + swizzle_128(offset), 0, 2);
          if (number) std::memcpy(shared + swizzle_128(offset), number, 2);
        }
}

// Faults unless the box's numbers inside of the tensor lie in a device buffer and the target in shared
// memory: what copies later is no thread, so it has to be known here.
inline void check_box(const std::byte* shared, size_t bytes, const cuda::TensorMap& map, const Place& from) {
  if (reinterpret_cast<uintptr_t>(shared) % 1024) fault("TMA: the target is not 1024-aligned");
  const std::byte* dynamic = current_block->dynamic_shared();
  if (shared < dynamic || shared + bytes > dynamic + current_block->shape().dynamic_shared)
    fault("TMA: the target is not in the block's dynamic shared memory");
  Place low, high;
  for (size_t d = 0; d < 4; ++d) {
    low[d] = std::max<int64_t>(from[d], 0);
    high[d] = std::min(from[d] + map.box[d], map.size[d]) - 1;
  }
  const std::byte *first = number_at(map, low), *last = number_at(map, high);
  if (!first || !last) return;  // all zeros
  if (!memory().holds(first, static_cast<size_t>(last - first) + 2))
    fault("TMA: read of " + memory().describe(memory().holds(first, 2) ? last : first));
}

inline void tma_load(void* target, const cuda::TensorMap& map, uint64_t* word, int rank, const Place& from) {
  if (map.rank != rank) fault("TMA: the map has another number of dimensions than the instruction");
  Barrier& barrier = barrier_at(word, "TMA");
  auto* shared = static_cast<std::byte*>(target);
  const size_t bytes = size_t{2} * map.box[0] * map.box[1] * map.box[2] * map.box[3];
  check_box(shared, bytes, map, from);
  std::memset(shared, kPoison, bytes);
  current_block->later([=, &barrier] {
    copy_box(shared, map, from);
    barrier.bytes -= static_cast<int64_t>(bytes);
    barrier.end_phase_if_done();
  });
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

inline void mbarrier_init(uint64_t* word, int arrivals) {
  const auto count = static_cast<uint64_t>(arrivals);
  *reinterpret_cast<sim::Barrier*>(word) = {0, sim::Barrier::kValid, count, count, 0};
}

inline void mbarrier_arrive(uint64_t* word) {
  sim::Barrier& barrier = sim::barrier_at(word, "mbarrier.arrive");
  if (barrier.pending == 0) sim::fault("mbarrier.arrive: more arrivals than the phase expects");
  barrier.pending -= 1;
  barrier.end_phase_if_done();
}

// Announces bytes of bulk copies, then arrives.
inline void mbarrier_arrive_expect(uint64_t* word, int bytes) {
  sim::barrier_at(word, "mbarrier.arrive.expect_tx").bytes += bytes;
  mbarrier_arrive(word);
}

// Until the phase with this parity is over.
inline void mbarrier_wait(uint64_t* word, int parity) {
  sim::Barrier& barrier = sim::barrier_at(word, "mbarrier.try_wait");
  sim::current_block->wait("mbarrier.try_wait", [&barrier, parity] { return barrier.phase != (parity & 1); });
}

inline void fence_mbarrier_init() {}
inline void fence_async_proxy() {}

inline void tma_load_2d(void* shared, const TensorMap* map, uint64_t* word, int col, int row) {
  sim::tma_load(shared, *map, word, 2, {col, row, 0, 0});
}
inline void tma_load_4d(void* shared, const TensorMap* map, uint64_t* word, int i0, int i1, int i2, int i3) {
  sim::tma_load(shared, *map, word, 4, {i0, i1, i2, i3});
}
inline void prefetch_map(const TensorMap*) {}

}  // namespace kotoba::cuda::ptx
