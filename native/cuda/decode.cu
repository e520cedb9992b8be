// decode: out F32, F16 or BF16 [rows, cols] = x of any weight dtype, bit for bit as on every other device
// (rounded to the nearest where `out` has 16 bits).
#include "launch.h"
#include "ops.h"
#include "quant_parts.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Numbers that lie in rows, dense ones as a single row, so that no kernel needs to divide for them.
struct Rows {
  Numbers out;
  const std::byte* x;
  int64_t rows, cols;
  int64_t out_stride, x_stride;  // numbers
  bool wide;                     // four neighbours from a multiple of 4 on may be stored at once
};

Rows rows_of(const TensorView& out, const TensorView& x) {
  Rows r = {{out.data, out.dtype}, x.data, x.rows(), x.cols(), out.row_stride, x.row_stride, false};
  if (out.dense() && x.dense()) {
    r.cols *= r.rows;
    r.out_stride = r.x_stride = r.cols;
    r.rows = r.rows == 0 ? 0 : 1;
  }
  const uintptr_t four = 4 * static_cast<uintptr_t>(info(out.dtype).bytes);
  r.wide = reinterpret_cast<uintptr_t>(out.data) % four == 0 && r.out_stride % 4 == 0;
  return r;
}

__device__ __forceinline__ void store_four(const Rows& r, int64_t at, const float4& v, bool wide) {
  if (!wide) {
    const float four[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i) r.out.store(at + i, four[i]);
  } else if (r.out.dtype == DType::F32) {
    *reinterpret_cast<float4*>(reinterpret_cast<float*>(r.out.data) + at) = v;
  } else {
    const bool f16 = r.out.dtype == DType::F16;
    const uint32_t low = f16 ? F16Number::pack(v.x, v.y) : BF16Number::pack(v.x, v.y);
    const uint32_t high = f16 ? F16Number::pack(v.z, v.w) : BF16Number::pack(v.z, v.w);
    *reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(r.out.data) + at) = make_uint2(low, high);
  }
}

// ---- plain dtypes: a thread to four neighbours

template <typename Weight>
__device__ __forceinline__ float4 load_four(const typename Weight::Stored* from, bool aligned) {
  using Stored = typename Weight::Stored;
  struct alignas(sizeof(Stored) == 8 ? 16 : 4 * sizeof(Stored)) Four {
    Stored v[4];
  };
  if (aligned) {
    const Four four = *reinterpret_cast<const Four*>(from);
    return make_float4(Weight::decode(four.v[0]), Weight::decode(four.v[1]), Weight::decode(four.v[2]),
                       Weight::decode(four.v[3]));
  }
  return make_float4(Weight::decode(from[0]), Weight::decode(from[1]), Weight::decode(from[2]),
                     Weight::decode(from[3]));
}

// `across`: blocks to a row.
template <typename Weight>
__global__ void __launch_bounds__(kThreads) decode_kernel(Rows r, int64_t across, bool aligned) {
  const int64_t row = blockIdx.x / across;
  const int64_t col = (blockIdx.x % across * kThreads + threadIdx.x) * 4;
  const auto* from = reinterpret_cast<const typename Weight::Stored*>(r.x) + row * r.x_stride + col;
  const int64_t to = row * r.out_stride + col;
  if (col + 4 <= r.cols) return store_four(r, to, load_four<Weight>(from, aligned), r.wide);
  for (int64_t i = 0; i < r.cols - col; ++i) r.out.store(to + i, Weight::decode(from[i]));
}

template <typename Weight>
void decode_plain(const Context& context, const Rows& r) {
  constexpr uintptr_t kFour = sizeof(typename Weight::Stored) == 8 ? 16 : 4 * sizeof(typename Weight::Stored);
  const int64_t across = ceil_div(r.cols, 4 * kThreads);
  const bool aligned = reinterpret_cast<uintptr_t>(r.x) % kFour == 0 && r.x_stride % 4 == 0;
  launch(context.stream, {"decode", r.rows * across, kThreads}, decode_kernel<Weight>, r, across, aligned);
}

// ---- GGUF types: a lane to a chunk. A warp's weights change hands in shared memory, so that what it stores
// is consecutive.

constexpr int kWarpWeights = 32 * kChunkWeights;

// Where the floats 4i… of a warp's weights are kept: runs of one chunk, and chunks, fall into different
// banks.
__device__ __forceinline__ int swizzled(int i) { return i ^ (i >> 3 & 7); }

template <typename Block>
__device__ __forceinline__ void decode_chunk(float4* to, const std::byte* row, unsigned first,
                                             unsigned lane) {
  using Source = Chunks<Block>;
  const int own = chunk_in_block<Block>(lane);
  uint32_t raw[Source::kWords];
  Source::load(block_of_chunk<Block>(row, first + lane), own, raw);
  Scales scales;
  Source::scales(raw, own, scales);
  KOTOBA_UNROLL(unroll)
  for (int run = 0; run < kRuns; ++run) {
    float w[kRunWeights];
    decode_run<Source>(raw, own, run, scales, w);
    const int at = static_cast<int>(run_start<Block>(lane, run)) / 4;
    to[swizzled(at)] = make_float4(w[0], w[1], w[2], w[3]);
    to[swizzled(at + 1)] = make_float4(w[4], w[5], w[6], w[7]);
  }
}

template <typename Block>
__global__ void __launch_bounds__(kThreads) decode_blocks_kernel(Rows r, int64_t across, int64_t row_bytes) {
  KOTOBA_SHARED(shared, float4[kWarps][kWarpWeights / 4]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = blockIdx.x / across, first = (blockIdx.x % across * kWarps + warp) * kWarpWeights;
  if (first + lane * kChunkWeights < r.cols)
    decode_chunk<Block>(shared[warp], r.x + row * row_bytes, static_cast<unsigned>(first / kChunkWeights),
                        static_cast<unsigned>(lane));
  __syncwarp();
  const int64_t to = row * r.out_stride + first;
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kWarpWeights / 128; ++i) {
    const int at = 32 * i + lane;
    if (first + 4 * at < r.cols) store_four(r, to + 4 * at, shared[warp][swizzled(at)], r.wide);
  }
}

template <typename Block>
void decode_blocks(const Context& context, const Rows& r) {
  const int64_t across = ceil_div(r.cols, kWarps * kWarpWeights);
  launch(context.stream, {"decode_blocks", r.rows * across, kThreads}, decode_blocks_kernel<Block>, r, across,
         r.x_stride / Block::kWeights * static_cast<int64_t>(sizeof(Block)));
}

}  // namespace

void decode(const Context& context, TensorView out, TensorView x) {
  const Rows rows = rows_of(out, x);
  if (is_plain(x.dtype))
    return dispatch_plain(x.dtype, "decode", [&]<typename Weight>() { decode_plain<Weight>(context, rows); });
  require(has_aligned_blocks(x), "decode: x's blocks do not lie at a multiple of their alignment");
  dispatch_block(x.dtype, "decode", [&]<typename Block>() { decode_blocks<Block>(context, rows); });
}

}  // namespace kotoba::cuda
