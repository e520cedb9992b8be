// Tensor-core instructions of a warp: mma.sync and ldmatrix, by the fragment layouts of the PTX ISA.
#pragma once

#include <array>

#include "../../float_formats.h"
#include "convert.h"
#include "warp.h"

namespace kotoba::sim {

// Which number of a matrix is number i of a thread's registers. One layout serves them all: the sums of
// mma.sync and wgmma, pairs of 16-bit factors, and 8 x 8 matrices, of which a thread has numbers 0 and 1.
struct FragmentPlace {
  int row, col;
  FragmentPlace(int thread, int i)
      : row(thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8), col(i / 4 * 8 + thread % 4 * 2 + i % 2) {}
};

// Number i of registers that hold two each.
inline uint16_t half_of(const uint32_t* registers, int i) {
  return static_cast<uint16_t>(registers[i / 2] >> i % 2 * 16);
}

// What a thread brings to a product.
struct MmaRegisters {
  float* d;       // its sums
  uint32_t a[4];  // its factors, where they do not come from shared memory
  uint32_t b[2];  // of column thread / 4 only
};

template <size_t size>
std::array<MmaRegisters, size> registers_of(const Meeting& group) {
  std::array<MmaRegisters, size> threads;
  for (unsigned i = 0; i < size; ++i) threads[i] = Parts<MmaRegisters>{group.first}[i];
  return threads;
}

// A row of eight sums: the simulated products of a row go side by side, each still summed in the order of k.
typedef float FloatRow __attribute__((vector_size(32)));

// d [rows, cols] (+)= a [rows, 16] · b [16, cols], numbers of 16 bits decoded by `decode`. Two threads for
// every row hold `d`.
template <int rows, int cols, float (*decode)(uint16_t)>
struct Product {
  float a[rows][16];
  FloatRow b[16][cols / 8];

  void set_a(int row, int k, uint16_t bits) { a[row][k] = decode(bits); }
  void set_b(int k, int col, uint16_t bits) { b[k][col / 8][col % 8] = decode(bits); }
  void set_a(const MmaRegisters* threads) {
    for (int thread = 0; thread < 2 * rows; ++thread)
      for (int i = 0; i < 8; ++i) {
        const FragmentPlace place(thread, i);
        set_a(place.row, place.col, half_of(threads[thread].a, i));
      }
  }

  void add(const MmaRegisters* threads, bool accumulate) const {
    for (int row = 0; row < rows; ++row) {
      const int first = row / 16 * 32 + row % 8 * 4;  // of the four threads that hold the row
      for (int panel = 0; panel < cols / 8; ++panel) {
        const int i = panel * 4 + row % 16 / 8 * 2;  // the first of its two numbers
        FloatRow sum = {};
        if (accumulate)
          for (int col = 0; col < 8; ++col) sum[col] = threads[first + col / 2].d[i + col % 2];
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][panel];
        for (int col = 0; col < 8; ++col) threads[first + col / 2].d[i + col % 2] = sum[col];
      }
    }
  }
};

template <float (*decode)(uint16_t)>
void mma_m16n8k16(MmaRegisters mine, Here at) {
  if (!meet_warp(kWholeWarp, &mine, "mma.sync", at)) return;
  const auto lanes = registers_of<32>(current_block->warp());
  Product<16, 8, decode> product;
  product.set_a(lanes.data());
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const FragmentPlace transposed(lane, i / 2 * 4 + i % 2);
      product.set_b(transposed.col, transposed.row, half_of(lanes[lane].b, i));
    }
  product.add(lanes.data(), true);
}

// Lane 8i + j points to row j of 8 x 8 matrix i: 16 bytes. Register i gets a fragment of it or its transpose.
template <bool kTranspose>
void ldmatrix_x4(uint32_t (&out)[4], const void* row, Here at) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fault("ldmatrix: a row is not 16-aligned");
  if (!current_block->in_shared(row)) fault("ldmatrix: a row is not in shared memory");
  struct Load {
    uint32_t* out;
    const uint16_t* row;
  } mine{out, static_cast<const uint16_t*>(row)};
  if (!meet_warp(kWholeWarp, &mine, "ldmatrix", at)) return;
  const Parts<Load> lanes{current_block->warp().first};
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint32_t pair = 0;
      for (int i = 0; i < 2; ++i) {
        const FragmentPlace place(lane, i);
        const uint32_t number = kTranspose ? lanes[matrix * 8 + place.col].row[place.row]
                                           : lanes[matrix * 8 + place.row].row[place.col];
        pair |= number << 16 * i;
      }
      lanes[lane].out[matrix] = pair;
    }
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

using sim::Here;

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              Here at = Here::current()) {
  sim::mma_m16n8k16<bf16_to_f32>({d, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, at);
}
inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             Here at = Here::current()) {
  sim::mma_m16n8k16<f16_to_f32>({d, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, at);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Here at = Here::current()) {
  sim::ldmatrix_x4<false>(r, row, at);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Here at = Here::current()) {
  sim::ldmatrix_x4<true>(r, row, at);
}

}  // namespace kotoba::cuda::ptx
