// The only place where kernels start.
#pragma once

#include "stream.h"

namespace kotoba::cuda {

struct LaunchSize {
  const char* kernel;  // for messages
  int64_t blocks;
  int threads;         // to a block
  int64_t shared = 0;  // bytes of dynamic shared memory
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Nothing starts for 0 blocks: an empty tensor has no work.
template <typename... Parameters, typename... Arguments>
void launch(const Stream& stream, const LaunchSize& size, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (size.blocks == 0) return;
  require(size.blocks <= 0x7fffffff, size.kernel, ": a tensor this large needs ", size.blocks,
          " blocks, more than a launch may have");
  if (size.shared > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(size.shared)),
          size.kernel);
  const auto blocks = static_cast<unsigned>(size.blocks), threads = static_cast<unsigned>(size.threads);
  const auto shared = static_cast<size_t>(size.shared);
#ifdef KOTOBA_CUDA_SIM
  sim::launch(stream.get(), {size.kernel, blocks, threads, shared},
              [kernel, ... values = static_cast<Parameters>(arguments)] { kernel(values...); });
#else
  // clang-format off
  kernel<<<blocks, threads, shared, stream.get()>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
#endif
  check(cudaGetLastError(), size.kernel);
}

}  // namespace kotoba::cuda
