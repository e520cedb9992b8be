// wgmma: four warps multiply tiles of shared memory, found through descriptors that are decoded from the bits
// that the hardware gets. Products are done when the warpgroup waits for their group, not before.
#pragma once

#include "../../float_formats.h"
#include "bulk_copy.h"

namespace kotoba::sim {

constexpr unsigned kWarpgroup = 128;  // threads

// K-major tile with 128-byte swizzle: rows of 128 bytes in atoms of 8 rows.
struct Descriptor {
  size_t start;  // byte in dynamic shared memory
  size_t atom;   // bytes from 8 rows to the next 8

  explicit Descriptor(uint64_t bits) : start((bits & 0x3fff) << 4), atom((bits >> 32 & 0x3fff) << 4) {
    if (bits >> 62 != 1) fault("wgmma: the descriptor has another layout than 128-byte swizzle");
  }
  // The swizzle mixes bits of the address, not of the offset in the tile.
  uint16_t at(int row, int k) const {
    const size_t address = start + static_cast<size_t>(row / 8) * atom + static_cast<size_t>(row % 8) * 128 +
                           static_cast<size_t>(k) * 2;
    uint16_t value;
    std::memcpy(&value, current_block->dynamic_shared() + swizzle_128(address), sizeof value);
    return value;
  }
};

// The group's copies are kept by its first thread.
inline CopyGroups& warpgroup_work() {
  return current_block->thread(current_thread->rank / kWarpgroup * kWarpgroup).copies;
}

template <typename Work>
void warpgroup_together(void* part, const char* what, const std::source_location& at, Work work) {
  const unsigned rank = current_thread->rank;
  meet(current_block->warpgroup_meeting(rank / kWarpgroup), kWarpgroup, rank % kWarpgroup, part, what, at,
       work);
}

// d [64, n] (+)= a [64, 16] · b [n, 16]ᵀ; d: row warp * 16 + g + 8 (r / 2 % 2), column 8 (r / 4) + 2t + r % 2
// in register r, where g is lane / 4 and t lane % 4.
template <int n, float (*decode)(uint16_t)>
void multiply_tiles(float* const (&d)[kWarpgroup], Descriptor a, Descriptor b, bool accumulate) {
  float a_tile[64][16], b_tile[n][16];
  for (int i = 0; i < 64; ++i)
    for (int k = 0; k < 16; ++k) a_tile[i][k] = decode(a.at(i, k));
  for (int j = 0; j < n; ++j)
    for (int k = 0; k < 16; ++k) b_tile[j][k] = decode(b.at(j, k));
  for (int thread = 0; thread < static_cast<int>(kWarpgroup); ++thread)
    for (int r = 0; r < n / 2; ++r) {
      const int lane = thread % 32;
      const int row = thread / 32 * 16 + lane / 4 + r / 2 % 2 * 8, col = r / 4 * 8 + lane % 4 * 2 + r % 2;
      float sum = accumulate ? d[thread][r] : 0;
      for (int k = 0; k < 16; ++k) sum += a_tile[row][k] * b_tile[col][k];
      d[thread][r] = sum;
    }
}

template <int n, float (*decode)(uint16_t)>
void wgmma(float* d, uint64_t a, uint64_t b, bool accumulate, const std::source_location& at) {
  const Descriptor a_tile(a), b_tile(b);
  warpgroup_together(d, "wgmma", at, [&](void** parts) {
    struct Registers {
      float* of[kWarpgroup];
    } registers;
    for (unsigned i = 0; i < kWarpgroup; ++i) registers.of[i] = static_cast<float*>(parts[i]);
    warpgroup_work().open.push_back(
        [=] { multiply_tiles<n, decode>(registers.of, a_tile, b_tile, accumulate); });
  });
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

#define KOTOBA_HERE const std::source_location& at = std::source_location::current()

// The bits for a K-major tile of 16-bit numbers, 64 to a row, in dynamic shared memory.
inline uint64_t wgmma_descriptor(const void* tile) {
  const auto start =
      static_cast<uint64_t>(static_cast<const std::byte*>(tile) - sim::current_block->dynamic_shared());
  return (start & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

template <int n>
void wgmma_bf16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate, KOTOBA_HERE) {
  sim::wgmma<n, bf16_to_f32>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_f16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate, KOTOBA_HERE) {
  sim::wgmma<n, f16_to_f32>(d, a, b, accumulate, at);
}

inline void wgmma_fence() {}

inline void wgmma_commit(KOTOBA_HERE) {
  sim::warpgroup_together(nullptr, "wgmma.commit_group", at, [](void**) {
    sim::CopyGroups& work = sim::warpgroup_work();
    work.committed.push_back(std::move(work.open));
    work.open.clear();
  });
}

// Until at most kPending groups of this warpgroup are under way.
template <int kPending>
void wgmma_wait(KOTOBA_HERE) {
  sim::warpgroup_together(nullptr, "wgmma.wait_group", at, [](void**) {
    auto& groups = sim::warpgroup_work().committed;
    while (groups.size() > kPending) {
      for (const sim::Copy& product : groups.front()) product();
      groups.erase(groups.begin());
    }
  });
}

template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

#undef KOTOBA_HERE

}  // namespace kotoba::cuda::ptx
