// What the attention kernels on mma.sync share. Tiles in shared memory are rows of kDims 16-bit numbers and 8
// more: an odd number of 16 bytes, so that ldmatrix meets no bank twice. Blocks have kMmaThreads threads.
#pragma once

#include "attention_softmax.cuh"
#include "numbers.cuh"

namespace kotoba::cuda {

constexpr int kMmaWarps = 4, kMmaThreads = 32 * kMmaWarps;

// Rows of a tile, zeros beyond `present` rows and `columns` columns; with wide loads they are under way, as
// the thread's next group.
template <int kRows, int kDims>
__device__ __forceinline__ void load_rows(uint16_t* tile, const uint16_t* x, int64_t stride, int present,
                                          int columns, bool wide) {
  constexpr int kPitch = kDims + 8, kChunks = kDims / 8;
  constexpr int kLanes = kChunks & -kChunks, kRowsAtOnce = kMmaThreads / kLanes;  // kLanes threads to a row
  const int thread = static_cast<int>(threadIdx.x);
  if (wide) {
    KOTOBA_UNROLL(unroll kDims > 96 ? 1 : kRows)
    for (int first = 0; first < kRows; first += kRowsAtOnce) {
      const int row = first + thread / kLanes;
      const uint16_t* from = x + row * stride;
      KOTOBA_UNROLL(unroll)
      for (int chunk = 0; chunk < kChunks; chunk += kLanes) {
        const int column = (chunk + thread % kLanes) * 8;
        ptx::cp_async_16(tile + row * kPitch + column, from + column, row < present && column < columns);
      }
    }
  } else {
    KOTOBA_UNROLL(unroll 1)
    for (int i = thread; i < kRows * kDims; i += kMmaThreads) {
      const int row = i / kDims, column = i % kDims;
      const bool exists = row < present && column < columns;
      tile[row * kPitch + column] = exists ? x[row * stride + column] : uint16_t{0};
    }
  }
  ptx::cp_async_commit();
}

// 16 x 16 numbers of the warp's queries.
template <int kPitch>
__device__ __forceinline__ void load_fragment(uint32_t (&fragment)[4], const uint16_t* rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  ptx::ldmatrix_x4(fragment, rows + lane % 16 * kPitch + lane / 16 * 8);
}

template <typename Number>
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  if constexpr (std::is_same_v<Number, F16Number>)
    ptx::mma_m16n8k16_f16(d, a, b);
  else
    ptx::mma_m16n8k16_bf16(d, a, b);
}

// scores += q kᵀ. `query(fragment, r, step)` gives columns 16 · step… of the warp's row tile r.
template <typename Number, int kDims, int kRowTiles, int kKeys, typename Query>
__device__ __forceinline__ void multiply_keys(float (&scores)[kRowTiles][kKeys / 8][4], const uint16_t* k,
                                              Query query) {
  constexpr int kPitch = kDims + 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint16_t* row = k + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8;
  KOTOBA_UNROLL(unroll)
  for (int step = 0; step < kDims / 16; ++step) {
    uint32_t a[kRowTiles][4];
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRowTiles; ++r) query(a[r], r, step);
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t b[4];
      ptx::ldmatrix_x4(b, row + 16 * j * kPitch + 16 * step);
      KOTOBA_UNROLL(unroll)
      for (int r = 0; r < kRowTiles; ++r) {
        multiply<Number>(scores[r][2 * j], a[r], b[0], b[1]);
        multiply<Number>(scores[r][2 * j + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// mixed += weights · v, the weights rounded to 16 bits.
template <typename Number, int kDims, int kRowTiles, int kKeys>
__device__ __forceinline__ void multiply_values(float (&mixed)[kRowTiles][kDims / 8][4], const uint16_t* v,
                                                const float (&weights)[kRowTiles][kKeys / 8][4]) {
  constexpr int kPitch = kDims + 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint16_t* row = v + lane % 16 * kPitch + lane / 16 * 8;
  KOTOBA_UNROLL(unroll)
  for (int step = 0; step < kKeys / 16; ++step) {
    uint32_t a[kRowTiles][4];
    KOTOBA_UNROLL(unroll)
    for (int r = 0; r < kRowTiles; ++r) KOTOBA_UNROLL(unroll)
    for (int i = 0; i < 4; ++i) {
      const float(&pair)[4] = weights[r][2 * step + i / 2];
      a[r][i] = Number::pack(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
    }
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kDims / 16; ++j) {
      uint32_t b[4];
      ptx::ldmatrix_x4_trans(b, row + 16 * step * kPitch + 16 * j);
      KOTOBA_UNROLL(unroll)
      for (int r = 0; r < kRowTiles; ++r) {
        multiply<Number>(mixed[r][2 * j], a[r], b[0], b[1]);
        multiply<Number>(mixed[r][2 * j + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// The warp's rows, first to `stage`, its own part of shared memory: from there they leave side by side.
template <typename Number, int kDims, int kRowTiles>
__device__ __forceinline__ void store_rows(uint16_t* out, const AttentionProblem& p, int present, int columns,
                                           uint16_t* stage, const float (&mixed)[kRowTiles][kDims / 8][4],
                                           const RowSums (&rows)[kRowTiles]) {
  constexpr int kPitch = kDims + 8, kChunks = kDims / 8, kRows = 16 * kRowTiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  KOTOBA_UNROLL(unroll)
  for (int r = 0; r < kRowTiles; ++r) KOTOBA_UNROLL(unroll)
  for (int h = 0; h < 2; ++h) {
    const float factor = 1 / rows[r].total(h);
    uint16_t* row = stage + (16 * r + 8 * h + lane / 4) * kPitch + lane % 4 * 2;
    KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kDims / 8; ++j)
      *reinterpret_cast<uint32_t*>(row + 8 * j) =
          Number::pack(mixed[r][j][2 * h] * factor, mixed[r][j][2 * h + 1] * factor);
  }
  __syncwarp();
  if (p.wide_stores) {
    for (int i = lane; i < kRows * kChunks; i += 32) {
      const int row = i / kChunks, column = i % kChunks * 8;
      if (row < present && column < columns)
        *reinterpret_cast<uint4*>(out + row * p.out_stride + column) =
            *reinterpret_cast<const uint4*>(stage + row * kPitch + column);
    }
  } else {
    KOTOBA_UNROLL(unroll 1)
    for (int i = lane; i < kRows * kDims; i += 32) {
      const int row = i / kDims, column = i % kDims;
      if (row < present && column < columns) out[row * p.out_stride + column] = stage[row * kPitch + column];
    }
  }
}

}  // namespace kotoba::cuda
