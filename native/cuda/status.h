// CUDA's errors as coded ones that say what to do.
#pragma once

#include <string>

#include "../errors.h"
#include "runtime.h"

namespace kotoba::cuda {

// Throws unless `status` is success, naming what failed: ERR_OUT_OF_MEMORY, ERR_DEVICE_LOST if this process
// cannot use the GPU again, else ERR_DEVICE.
void check(cudaError_t status, const char* what);

// "2.50 GiB", "640 bytes"
std::string show_bytes(int64_t bytes);

}  // namespace kotoba::cuda
