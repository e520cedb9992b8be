// The first half of group_norm (group_norm.cu): means and squared deviations of pieces of pixels, group by
// group.
#pragma once

#include "reduce.cuh"
#include "vectors.cuh"

namespace kotoba::cuda::group_moments {

constexpr int kThreads = 256;
constexpr int kVector = 4;
constexpr int kTilePixels = 8;         // of a thread
constexpr int kMostGroups = kThreads;  // of a tile
constexpr int64_t kPieceElements = 4096;

// Of `count` values: m2 is the sum of squared deviations from the mean.
struct Moments {
  double count, mean, m2;

  // Chan, Golub, LeVeque 1979.
  __device__ __forceinline__ void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, apart = other.mean - mean;
    mean += apart * other.count / total;
    m2 += other.m2 + apart * apart * count * other.count / total;
    count = total;
  }
};

// Of numbers whose FP32 mean was `mean`, and of their deviations from it, FP32 sums.
__device__ __forceinline__ Moments moments_of(double count, float mean, float deviations, float squares) {
  const double shift = deviations / count;  // what rounding left of the mean
  return {count, mean + shift, squares - shift * shift * count};
}

struct Shape {
  Numbers x;
  int64_t stride, pixels, channels, groups;
  int64_t piece;   // pixels
  int64_t pieces;  // of an image
  __device__ __host__ int64_t width() const { return channels / groups; }
};

// ---- moments, any shape: a block to a piece of a group, blockIdx = (image * groups + group) * pieces +
// piece

__global__ void piece_moments_kernel(Shape s, Moments* moments) {
  const int64_t piece = blockIdx.x % s.pieces, group = blockIdx.x / s.pieces % s.groups;
  const int64_t image = blockIdx.x / s.pieces / s.groups, width = s.width();
  const int64_t first = piece * s.piece, rest = s.pixels - first;
  const int64_t count = (rest < s.piece ? rest : s.piece) * width;
  const int64_t start = (image * s.pixels + first) * s.stride + group * width;
  const auto value = [&](int64_t i) { return s.x.load(start + i / width * s.stride + i % width); };

  const float n = static_cast<float>(count);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += value(i);
  const float mean = block_sum<kThreads>(sum) / n;
  float sums[2] = {0, 0};  // of deviations, of their squares
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const float d = value(i) - mean;
    sums[0] += d;
    sums[1] = fmaf(d, d, sums[1]);
  }
  block_sums<kThreads>(sums);
  if (threadIdx.x == 0) moments[blockIdx.x] = moments_of(static_cast<double>(count), mean, sums[0], sums[1]);
}

// ---- moments, rows of vectors: a block to all groups of its columns of a piece, which stays in registers.
// `lanes` threads share a row; as many rows as that leaves room for are read at a time.

struct Tiling {
  int lanes, slots;  // slots: rows at a time
  int tiles;         // of channels, `groups` groups each
  int groups, width;
  Divisor by_lanes, by_tiles, by_pieces;
};

// sums[slot][column] of all slots and of a group's columns, in this order.
__device__ __forceinline__ float group_sum(const float* sums, const Tiling& t, int group) {
  const int columns = t.lanes * kVector;
  float sum = 0;
  for (int slot = 0; slot < t.slots; ++slot)
    for (int c = 0; c < t.width; ++c) sum += sums[slot * columns + group * t.width + c];
  return sum;
}

template <typename From>
__global__ void __launch_bounds__(kThreads) tile_moments_kernel(Shape s, Tiling t, Moments* moments) {
  KOTOBA_SHARED(sums, float4[kThreads]);
  KOTOBA_SHARED(squares, float4[kThreads]);
  KOTOBA_SHARED(means, float[kMostGroups]);
  const int thread = static_cast<int>(threadIdx.x);
  uint32_t rest = blockIdx.x, lane = threadIdx.x;
  const int slot = static_cast<int>(t.by_lanes.divide(lane));
  uint32_t piece = t.by_tiles.divide(rest);
  const int64_t image = t.by_pieces.divide(piece);
  const int first_group = static_cast<int>(rest) * t.groups, column = static_cast<int>(lane) * kVector;
  const int groups = std::min<int>(t.groups, static_cast<int>(s.groups) - first_group);
  const int64_t first = piece * s.piece, end = std::min(first + s.piece, s.pixels);
  const bool works = slot < t.slots && column < groups * t.width;

  // Read, and add up by channels.
  float v[kTilePixels][kVector], sum[kVector] = {};
  const auto* x = reinterpret_cast<const typename From::Stored*>(s.x.data) +
                  (image * s.pixels + first + slot) * s.stride + first_group * t.width + column;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kTilePixels; ++i)
    if (works && first + slot + i * t.slots < end) load_vector<From>(v[i], x + i * t.slots * s.stride);
  const auto each = [&](auto f) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kTilePixels; ++i)
      if (works && first + slot + i * t.slots < end) KOTOBA_UNROLL(unroll)
    for (int j = 0; j < kVector; ++j) f(v[i][j], j);
  };
  each([&](float value, int j) { sum[j] += value; });
  if (slot < t.slots) sums[thread] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  __syncthreads();
  const int64_t count = (end - first) * t.width;
  const auto* all_sums = reinterpret_cast<const float*>(sums);
  if (thread < groups) means[thread] = group_sum(all_sums, t, thread) / static_cast<float>(count);
  __syncthreads();

  // Deviations from the group's mean, and their squares.
  float mean[kVector], square[kVector] = {};
  KOTOBA_UNROLL(unroll)
  for (int j = 0; j < kVector; ++j) {
    mean[j] = works ? means[(column + j) / t.width] : 0;
    sum[j] = 0;
  }
  each([&](float value, int j) {
    const float d = value - mean[j];
    sum[j] += d;
    square[j] = fmaf(d, d, square[j]);
  });
  if (slot < t.slots) {
    sums[thread] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    squares[thread] = make_float4(square[0], square[1], square[2], square[3]);
  }
  __syncthreads();
  if (thread >= groups) return;
  const int64_t at = (image * s.groups + first_group + thread) * s.pieces + piece;
  moments[at] = moments_of(static_cast<double>(count), means[thread], group_sum(all_sums, t, thread),
                           group_sum(reinterpret_cast<const float*>(squares), t, thread));
}

}  // namespace kotoba::cuda::group_moments
