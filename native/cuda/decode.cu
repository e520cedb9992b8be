// decode: out F32 [rows, cols] = x of any weight dtype, bit for bit as on every other device.
#include "launch.h"
#include "ops.h"
#include "weight.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockThreads = 64;  // of those that hold a block of weights each

template <typename Weight>
__global__ void decode_kernel(float* out, int64_t out_stride, const std::byte* x, int64_t x_stride,
                              int64_t count, int64_t cols) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto* from = reinterpret_cast<const typename Weight::Stored*>(x);
  out[i / cols * out_stride + i % cols] = Weight::decode(from[i / cols * x_stride + i % cols]);
}

// A thread to a block of weights; x_stride and `blocks`, of a row, in blocks.
template <typename Block>
__global__ void decode_blocks_kernel(float* out, int64_t out_stride, const std::byte* x, int64_t x_stride,
                                     int64_t count, int64_t blocks) {
  const int64_t i = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  if (i >= count) return;
  float w[Block::kWeights];
  const int64_t r = i / blocks, b = i % blocks;
  decode_block(reinterpret_cast<const Block*>(x)[r * x_stride + b], w);
  float* to = out + r * out_stride + b * Block::kWeights;
  KOTOBA_UNROLL(unroll 4)
  for (int j = 0; j < Block::kWeights; ++j) to[j] = w[j];
}

}  // namespace

void decode(const Context& context, TensorView out, TensorView x) {
  const int64_t count = x.elements();
  if (is_plain(x.dtype))
    return dispatch_plain(x.dtype, "decode", [&]<typename Weight>() {
      launch(context.stream, {"decode", ceil_div(count, kThreads), kThreads}, decode_kernel<Weight>,
             out.as<float>(), out.row_stride, x.data, x.row_stride, count, x.cols());
    });
  dispatch_block(x.dtype, "decode", [&]<typename Block>() {
    const int64_t blocks = count / Block::kWeights;
    launch(context.stream, {"decode_blocks", ceil_div(blocks, kBlockThreads), kBlockThreads},
           decode_blocks_kernel<Block>, out.as<float>(), out.row_stride, x.data,
           x.row_stride / Block::kWeights, blocks, x.cols() / Block::kWeights);
  });
}

}  // namespace kotoba::cuda
