// mbarrier and TMA: a barrier in shared memory that counts arrivals and bytes, and the bulk copies that
// signal it. Copies are done by nobody's thread and complete, in any order, when no thread can go on without
// one.
#pragma once

#include <cstring>

#include "block.h"

namespace kotoba::cuda {

// A matrix in global memory that TMA reads boxes of, with 128-byte swizzle. The simulator's form of
// CUtensorMap.
struct TensorMap {
  const std::byte* data;
  int64_t rows, cols, row_bytes;
  int box_rows, box_cols;
  int element_bytes;
};

}  // namespace kotoba::cuda

namespace kotoba::sim {

// The 8 bytes of an mbarrier.
struct Barrier {
  static constexpr uint64_t kValid = 0x2a;
  uint64_t phase : 1, valid : 7;         // `valid` tells an initialised barrier from poison
  uint64_t pending : 12, expected : 12;  // arrivals
  int64_t bytes : 32;                    // announced, still to come
};
static_assert(sizeof(Barrier) == 8);

inline Barrier& barrier_at(uint64_t* word, const char* what) {
  auto& barrier = *reinterpret_cast<Barrier*>(word);
  if (!current_block->in_shared(word)) fault(std::string(what) + ": the mbarrier is not in shared memory");
  if (barrier.valid != Barrier::kValid) fault(std::string(what) + ": the mbarrier was not initialised");
  return barrier;
}

inline void complete_if_done(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.expected;
}

// Where 128-byte swizzle puts a byte of a tile: bits 4…6 of an address are mixed with bits 7…9.
inline size_t swizzle_128(size_t offset) { return offset ^ (offset >> 7 & 7) << 4; }

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
  sim::complete_if_done(barrier);
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

// The box of `map` from (row, col) on to shared memory, zeros where it leaves the matrix.
inline void tma_load_2d(void* shared, const TensorMap* map, uint64_t* word, int col, int row) {
  if (reinterpret_cast<uintptr_t>(shared) % 1024) sim::fault("TMA: the target is not 1024-aligned");
  sim::barrier_at(word, "TMA");
  const TensorMap m = *map;
  const size_t bytes = static_cast<size_t>(m.box_rows) * m.box_cols * m.element_bytes;
  std::memset(shared, 0xff, bytes);
  sim::current_block->later([=] {
    for (int r = 0; r < m.box_rows; ++r)
      for (int c = 0; c < m.box_cols; ++c) {
        const auto at = (static_cast<size_t>(r) * m.box_cols + c) * m.element_bytes;
        std::byte* to = static_cast<std::byte*>(shared) + sim::swizzle_128(at);
        const int64_t y = int64_t{row} + r, x = int64_t{col} + c;
        if (y >= 0 && x >= 0 && y < m.rows && x < m.cols)
          std::memcpy(to, m.data + y * m.row_bytes + x * m.element_bytes, m.element_bytes);
        else
          std::memset(to, 0, m.element_bytes);
      }
    auto& barrier = *reinterpret_cast<sim::Barrier*>(word);
    barrier.bytes -= static_cast<int64_t>(bytes);
    sim::complete_if_done(barrier);
  });
}

}  // namespace kotoba::cuda::ptx
