// wgmma: four warps multiply tiles of shared memory, found through descriptors that are decoded from the bits
// that the hardware gets. Products are done when the warpgroup waits for their group and nobody else can go
// on, not before.
#pragma once

#include "bulk_copy.h"
#include "mma.h"

namespace kotoba::sim {

// A tile with 128-byte swizzle, in atoms of 8 rows of 128 bytes: [rows, k], or [k, columns] in panels of 64
// columns.
struct Descriptor {
  size_t start;  // byte in dynamic shared memory
  size_t atom;   // bytes from 8 rows to the next 8
  size_t panel;  // bytes from 64 columns to the next 64

  // Faults unless all of the tile is in the block's shared memory.
  Descriptor(uint64_t bits, int rows, int cols)
      : start((bits & 0x3fff) << 4), atom((bits >> 32 & 0x3fff) << 4), panel((bits >> 16 & 0x3fff) << 4) {
    if (bits >> 62 != 1) fault("wgmma: the descriptor has another layout than 128-byte swizzle");
    if (row_start(rows - 1, cols - 1) >= current_block->shape().dynamic_shared)
      fault("wgmma: a tile ends outside of the block's shared memory");
  }
  // Of the row's part in the panel of `col`.
  size_t row_start(int row, int col) const {
    return start + static_cast<size_t>(row / 8) * atom + static_cast<size_t>(row % 8) * 128 +
           static_cast<size_t>(col / 64) * panel;
  }
  // The swizzle mixes bits of the address, not of the offset in the tile.
  uint16_t at(int row, int col) const {
    const size_t address = row_start(row, col) + static_cast<size_t>(col % 64) * 2;
    uint16_t value;
    std::memcpy(&value, current_block->dynamic_shared() + swizzle_128(address), sizeof value);
    return value;
  }
};

inline bool meet_warpgroup(void* part, const char* what, Here at) {
  return current_block->meet(current_block->warpgroup(), part, what, at);
}

// d [64, n] (+)= a · b; read(product, threads) gets the factors from where they are when it is done.
template <int n, float (*decode)(uint16_t), typename Read>
void wgmma(MmaRegisters mine, bool accumulate, Here at, Read read) {
  if (!meet_warpgroup(&mine, "wgmma", at)) return;
  Meeting& group = current_block->warpgroup();
  group.products.add([=, threads = registers_of<128>(group)] {
    Product<64, n, decode> product;
    read(product, threads.data());
    product.add(threads.data(), accumulate);
  });
}

// a [64, 16] and b [n, 16] in shared memory.
template <int n, float (*decode)(uint16_t)>
void wgmma_nk(float* d, uint64_t a_bits, uint64_t b_bits, bool accumulate, Here at) {
  const Descriptor a(a_bits, 64, 16), b(b_bits, n, 16);
  wgmma<n, decode>({d, {}, {}}, accumulate, at, [=](auto& product, const MmaRegisters*) {
    for (int k = 0; k < 16; ++k) {
      for (int row = 0; row < 64; ++row) product.set_a(row, k, a.at(row, k));
      for (int col = 0; col < n; ++col) product.set_b(k, col, b.at(col, k));
    }
  });
}

// a [64, 16] in registers, b [16, n] in shared memory.
template <int n, float (*decode)(uint16_t)>
void wgmma_kn(float* d, const uint32_t (&a)[4], uint64_t b_bits, bool accumulate, Here at) {
  const Descriptor b(b_bits, 16, n);
  wgmma<n, decode>({d, {a[0], a[1], a[2], a[3]}, {}}, accumulate, at,
                   [=](auto& product, const MmaRegisters* threads) {
                     product.set_a(threads);
                     for (int k = 0; k < 16; ++k)
                       for (int col = 0; col < n; ++col) product.set_b(k, col, b.at(k, col));
                   });
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

// What a descriptor names a place in shared memory by.
inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const std::byte*>(p) - sim::current_block->dynamic_shared());
}

template <int n>
void wgmma_bf16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate, Here at = Here::current()) {
  sim::wgmma_nk<n, bf16_to_f32>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_f16(float (&d)[n / 2], uint64_t a, uint64_t b, bool accumulate, Here at = Here::current()) {
  sim::wgmma_nk<n, f16_to_f32>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_bf16_kn(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate,
                   Here at = Here::current()) {
  sim::wgmma_kn<n, bf16_to_f32>(d, a, b, accumulate, at);
}
template <int n>
void wgmma_f16_kn(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate,
                  Here at = Here::current()) {
  sim::wgmma_kn<n, f16_to_f32>(d, a, b, accumulate, at);
}

inline void wgmma_fence() {}

inline void wgmma_commit(Here at = Here::current()) {
  if (sim::meet_warpgroup(nullptr, "wgmma.commit_group", at))
    sim::current_block->warpgroup().products.commit();
}

// Until at most kPending groups of this warpgroup are under way. The products are done when no thread of the
// block can go on without them.
template <int kPending>
void wgmma_wait(Here at = Here::current()) {
  sim::WorkGroups& products = sim::current_block->warpgroup().products;
  if (sim::meet_warpgroup(nullptr, "wgmma.wait_group", at) && products.pending() > kPending)
    sim::current_block->later([&products] { products.finish_all_but(kPending); });
  sim::current_block->wait("wgmma.wait_group", [&products] { return products.pending() <= kPending; });
}

template <int kCount>
void hold_registers(float (&)[kCount]) {}

template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

}  // namespace kotoba::cuda::ptx
