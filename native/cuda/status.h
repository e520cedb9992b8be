// CUDA's errors as coded ones that say what to do.
#pragma once

#include <string>

#include "../errors.h"
#include "runtime.h"

namespace kotoba::cuda {

// Throws ERR_DEVICE, naming what failed, unless `status` is success.
void check(cudaError_t status, const char* what);

// "2.50 GiB", "640 bytes"
std::string show_bytes(int64_t bytes);

}  // namespace kotoba::cuda
