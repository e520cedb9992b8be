// Host: maps of tensors of 16-bit numbers, which TMA copies boxes of to shared memory, with 128-byte swizzle
// and zeros for what lies outside of the tensor.
#pragma once

#include <initializer_list>

#include "runtime.h"

#ifdef KOTOBA_CUDA_SIM
#include "sim/bulk_copy.h"
#else
#include <cuda.h>

namespace kotoba::cuda {
using TensorMap = CUtensorMap;
}  // namespace kotoba::cuda
#endif

namespace kotoba::cuda {

// Whether this build has kernels for TMA and wgmma (sm_90a), and the GPU can run them. On other targets they
// are empty, and what PTX for other GPUs would become on a Hopper one must not be started.
inline bool runs_wgmma([[maybe_unused]] int arch) {
#if defined(KOTOBA_CUDA_SIM) || defined(KOTOBA_BUILT_FOR_SM90A)
  return arch == 90;
#else
  return false;
#endif
}

constexpr int kMapColumns = 64;  // of a box: 128 bytes, which the swizzle is made for

struct MapDimension {
  int64_t size;
  int64_t stride;  // numbers from one to the next; 1 in the first dimension, a multiple of 8 in all others
  int box;         // of `size` at once, at most 256
};

// dimensions: 2 (ptx::tma_load_2d) or 4 (tma_load_4d), the one of neighbouring numbers first; its box is
// kMapColumns. data: in device memory, at a multiple of 16 bytes. A box in shared memory is 1024-aligned.
// Costs a microsecond or so of host time. Throws ERR_ARGUMENT for what TMA cannot do, ERR_DEVICE if the
// driver cannot.
TensorMap tensor_map(const void* data, std::initializer_list<MapDimension> dimensions);

// x [rows, cols], its rows `stride` numbers apart, in boxes of box_rows rows.
inline TensorMap matrix_map(const void* x, int64_t rows, int64_t cols, int64_t stride, int box_rows) {
  return tensor_map(x, {{cols, 1, kMapColumns}, {rows, stride, box_rows}});
}

}  // namespace kotoba::cuda
