// Finding a GPU that our kernels run on.
#pragma once

#include "status.h"

namespace kotoba::cuda {

// Makes GPU `index`, from 0, this thread's. ERR_DEVICE says what is missing and what to do.
cudaDeviceProp open_gpu(int index);

// "cuda", "cuda:1"
std::string gpu_name(int index);

// Bytes that a device may take of a card with `total`: `wanted`; if that is 0, KOTOBA_VRAM (MiB); without it,
// all but a tenth, for the driver and the desktop need some.
int64_t memory_budget(int64_t total, int64_t wanted);

}  // namespace kotoba::cuda
