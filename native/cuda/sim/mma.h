// Tensor-core instructions of a warp: mma.sync and ldmatrix, by the fragment layouts of the PTX ISA. In
// comments, `g` is lane / 4 and `t` lane % 4.
#pragma once

#include <immintrin.h>

#include "../../float_formats.h"
#include "warp.h"

namespace kotoba::sim {

// Numbers of 16 bits as floats.
inline float bf16_value(uint16_t bits) { return bf16_to_f32(bits); }
inline float f16_value(uint16_t bits) { return _cvtsh_ss(bits); }

// A row of eight sums: the simulated products of a row go side by side, each still summed in the order of k.
typedef float FloatRow __attribute__((vector_size(32)));

struct MmaOperands {
  float* d;           // [4]: rows g, g, g + 8, g + 8; columns 2t, 2t + 1, 2t, 2t + 1
  const uint32_t* a;  // [4] pairs: rows g, g + 8, g, g + 8; k from 2t, 2t, 2t + 8, 2t + 8 on
  const uint32_t* b;  // [2] pairs: column g; k from 2t, 2t + 8 on
};

// d [16, 8] += a [16, 16] · b [16, 8], numbers of 16 bits decoded by `decode`.
template <float (*decode)(uint16_t)>
void mma_m16n8k16(MmaOperands mine, const std::source_location& at) {
  Meeting& meeting = current_block->warp_meeting(current_thread->rank / 32, 0xffffffffu);
  meet(meeting, 32, current_thread->lane(), &mine, "mma.sync", at, [](void** parts) {
    float a[16][16];
    FloatRow b[16], d[16];
    for (int lane = 0; lane < 32; ++lane) {
      const auto& own = *static_cast<MmaOperands*>(parts[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int half = 0; half < 2; ++half) {
        for (int r = 0; r < 4; ++r)
          a[g + r % 2 * 8][2 * t + r / 2 * 8 + half] = decode(static_cast<uint16_t>(own.a[r] >> 16 * half));
        for (int r = 0; r < 2; ++r)
          b[2 * t + r * 8 + half][g] = decode(static_cast<uint16_t>(own.b[r] >> 16 * half));
      }
      for (int r = 0; r < 4; ++r) d[g + r / 2 * 8][2 * t + r % 2] = own.d[r];
    }
    for (int row = 0; row < 16; ++row)
      for (int k = 0; k < 16; ++k) d[row] += a[row][k] * b[k];
    for (int lane = 0; lane < 32; ++lane)
      for (int r = 0; r < 4; ++r)
        static_cast<MmaOperands*>(parts[lane])->d[r] = d[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
  });
}

struct MatrixLoad {
  uint32_t* out;    // [4], one register for each 8 x 8 matrix
  const void* row;  // lane 8i + j points to row j of matrix i: 16 bytes
};

// Lane (g, t) gets the numbers (g, 2t) and (g, 2t + 1) of every matrix; transposed, (2t, g) and (2t + 1, g).
template <bool kTranspose>
void ldmatrix_x4(uint32_t (&out)[4], const void* row, const std::source_location& at) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fault("ldmatrix: a row is not 16-aligned");
  if (!current_block->in_shared(row)) fault("ldmatrix: a row is not in shared memory");
  MatrixLoad mine{out, row};
  Meeting& meeting = current_block->warp_meeting(current_thread->rank / 32, 0xffffffffu);
  meet(meeting, 32, current_thread->lane(), &mine, "ldmatrix", at, [](void** parts) {
    for (int lane = 0; lane < 32; ++lane)
      for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t pair[2];
        for (int half = 0; half < 2; ++half) {
          const int line = kTranspose ? lane % 4 * 2 + half : lane / 4;
          const int column = kTranspose ? lane / 4 : lane % 4 * 2 + half;
          const void* from = static_cast<MatrixLoad*>(parts[matrix * 8 + line])->row;
          std::memcpy(&pair[half], static_cast<const uint16_t*>(from) + column, sizeof pair[half]);
        }
        static_cast<MatrixLoad*>(parts[lane])->out[matrix] = pair[0] | uint32_t{pair[1]} << 16;
      }
  });
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

#define KOTOBA_HERE const std::source_location& at = std::source_location::current()

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KOTOBA_HERE) {
  sim::mma_m16n8k16<sim::bf16_value>({d, a, b}, at);
}
inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KOTOBA_HERE) {
  sim::mma_m16n8k16<sim::f16_value>({d, a, b}, at);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, KOTOBA_HERE) {
  sim::ldmatrix_x4<false>(r, row, at);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, KOTOBA_HERE) {
  sim::ldmatrix_x4<true>(r, row, at);
}

#undef KOTOBA_HERE

}  // namespace kotoba::cuda::ptx
