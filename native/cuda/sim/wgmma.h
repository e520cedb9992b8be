// wgmma: four warps multiply tiles of shared memory, found through descriptors that are decoded from the bits
// that the hardware gets. Products are done when the warpgroup waits for their group and nobody else can go
// on, not before.
#pragma once

#include "../../float_formats.h"
#include "bulk_copy.h"
#include "mma.h"

namespace kotoba::sim {

constexpr unsigned kWarpgroup = 128;  // threads

// A tile with 128-byte swizzle, in atoms of 8 rows of 128 bytes: [rows, k], or [k, columns] in panels of 64
// columns.
struct Descriptor {
  size_t start;  // byte in dynamic shared memory
  size_t atom;   // bytes from 8 rows to the next 8
  size_t panel;  // bytes from 64 columns to the next 64

  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4), atom((bits >> 32 & 0x3fff) << 4), panel((bits >> 16 & 0x3fff) << 4) {
    if (bits >> 62 != 1) fault("wgmma: the descriptor has another layout than 128-byte swizzle");
  }
  // The swizzle mixes bits of the address, not of the offset in the tile.
  uint16_t at(int row, int col) const {
    const size_t address = start + static_cast<size_t>(row / 8) * atom + static_cast<size_t>(row % 8) * 128 +
                           static_cast<size_t>(col / 64) * panel + static_cast<size_t>(col % 64) * 2;
    uint16_t value;
    std::memcpy(&value, current_block->dynamic_shared() + swizzle_128(address), sizeof value);
    return value;
  }
  // A fault unless the tile's last number is in the block's shared memory.
  void require_inside(int rows, int cols) const {
    const size_t last = start + static_cast<size_t>((rows - 1) / 8) * atom +
                        static_cast<size_t>((cols - 1) / 64) * panel +
                        static_cast<size_t>((rows - 1) % 8) * 128;
    if (last >= current_block->shape().dynamic_shared)
      fault("wgmma: a tile ends outside of the block's shared memory");
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

// The numbers of one instruction: a [64, 16], b [16, n].
template <int n>
struct Factors {
  float a[64][16];
  FloatRow b[16][n / 8];
};

// d [64, n] (+)= a · b; d: row warp * 16 + g + 8 (r / 2 % 2), column 8 (r / 4) + 2t + r % 2 in register r,
// where g is lane / 4 and t lane % 4. Every number is summed in the order of k.
template <int n>
void multiply_factors(float* const (&d)[kWarpgroup], const Factors<n>& f, bool accumulate) {
  for (int row = 0; row < 64; ++row) {
    float* const* threads = d + row / 16 * 32 + row % 8 * 4;  // the four that hold the row
    const int first = row % 16 / 8 * 2;
    for (int panel = 0; panel < n / 8; ++panel) {
      FloatRow sum = {};
      if (accumulate)
        for (int col = 0; col < 8; ++col) sum[col] = threads[col / 2][4 * panel + first + col % 2];
      for (int k = 0; k < 16; ++k) sum += f.a[row][k] * f.b[k][panel];
      for (int col = 0; col < 8; ++col) threads[col / 2][4 * panel + first + col % 2] = sum[col];
    }
  }
}

// What the threads of a warpgroup bring to a product.
struct Registers {
  float* d;
  uint32_t a[4];  // if a comes from registers: as mma_m16n8k16's
};
struct WarpgroupRegisters {
  float* d[kWarpgroup];
  uint32_t a[kWarpgroup][4];
};

// read(factors, registers) gets the factors from where they are when the product is done.
template <int n, typename Read>
void wgmma(Registers mine, bool accumulate, const std::source_location& at, Read read) {
  warpgroup_together(&mine, "wgmma", at, [&](void** parts) {
    WarpgroupRegisters all;
    for (unsigned i = 0; i < kWarpgroup; ++i) {
      const auto& own = *static_cast<Registers*>(parts[i]);
      all.d[i] = own.d;
      std::memcpy(all.a[i], own.a, sizeof own.a);
    }
    warpgroup_work().open.push_back([=] {
      Factors<n> factors;
      read(factors, all);
      multiply_factors<n>(all.d, factors, accumulate);
    });
  });
}

template <int n, float (*decode)(uint16_t)>
void wgmma_nk(float* d, uint64_t a, uint64_t b, bool accumulate, const std::source_location& at) {
  const Descriptor a_tile(a), b_tile(b);
  a_tile.require_inside(64, 16);
  b_tile.require_inside(n, 16);
  wgmma<n>({d, {}}, accumulate, at, [=](Factors<n>& factors, const WarpgroupRegisters&) {
    for (int k = 0; k < 16; ++k) {
      for (int i = 0; i < 64; ++i) factors.a[i][k] = decode(a_tile.at(i, k));
      for (int j = 0; j < n; ++j) factors.b[k][j / 8][j % 8] = decode(b_tile.at(j, k));
    }
  });
}

template <int n, float (*decode)(uint16_t)>
void wgmma_kn(float* d, const uint32_t (&a)[4], uint64_t b, bool accumulate, const std::source_location& at) {
  const Descriptor b_tile(b);
  b_tile.require_inside(16, n);
  wgmma<n>({d, {a[0], a[1], a[2], a[3]}}, accumulate, at,
           [=](Factors<n>& factors, const WarpgroupRegisters& all) {
             for (int thread = 0; thread < static_cast<int>(kWarpgroup); ++thread)
               for (int r = 0; r < 8; ++r) {  // half r % 2 of register r / 2
                 const int row = thread / 32 * 16 + thread % 32 / 4 + r / 2 % 2 * 8;
                 const int k = thread % 4 * 2 + r / 4 * 8 + r % 2;
                 factors.a[row][k] = decode(static_cast<uint16_t>(all.a[thread][r / 2] >> r % 2 * 16));
               }
             for (int k = 0; k < 16; ++k)
               for (int j = 0; j < n; ++j) factors.b[k][j / 8][j % 8] = decode(b_tile.at(k, j));
           });
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

#define KOTOBA_HERE const std::source_location& at = std::source_location::current()

inline uint64_t wgmma_descriptor_kn(const void* tile, int panel_bytes) {
  const auto start =
      static_cast<uint64_t>(static_cast<const std::byte*>(tile) - sim::current_block->dynamic_shared());
  const auto panel = static_cast<uint64_t>(panel_bytes);
  return (start & 0x3ffff) >> 4 | panel >> 4 << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
inline uint64_t wgmma_descriptor(const void* tile) { return wgmma_descriptor_kn(tile, 16); }

template <int n>
void wgmma_bf16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate, KOTOBA_HERE) {
  sim::wgmma_nk<n, sim::bf16_value>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_f16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate, KOTOBA_HERE) {
  sim::wgmma_nk<n, sim::f16_value>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_bf16_kn(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, KOTOBA_HERE) {
  sim::wgmma_kn<n, sim::bf16_value>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_f16_kn(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, KOTOBA_HERE) {
  sim::wgmma_kn<n, sim::f16_value>(d, a, b, accumulate, at);
}

inline void wgmma_fence() {}

inline void wgmma_commit(KOTOBA_HERE) {
  sim::warpgroup_together(nullptr, "wgmma.commit_group", at, [](void**) {
    sim::CopyGroups& work = sim::warpgroup_work();
    work.committed.push_back(std::move(work.open));
    work.open.clear();
  });
}

// Until at most kPending groups of this warpgroup are under way. The products are done when no thread of the
// block can go on without them.
template <int kPending>
void wgmma_wait(KOTOBA_HERE) {
  auto& groups = sim::warpgroup_work().committed;
  sim::warpgroup_together(nullptr, "wgmma.wait_group", at, [&groups](void**) {
    if (groups.size() <= kPending) return;
    sim::current_block->later([&groups] {
      while (groups.size() > kPending) {
        for (const sim::Copy& product : groups.front()) product();
        groups.erase(groups.begin());
      }
    });
  });
  sim::current_block->wait("wgmma.wait_group", [&groups] { return groups.size() <= kPending; });
}

template <int kCount>
void hold_registers(float (&)[kCount]) {}

template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

#undef KOTOBA_HERE

}  // namespace kotoba::cuda::ptx
