// A device that lives in a shared library of its own beside the addon, opened when it is first asked for: so
// one build works with and without its toolkit, driver and hardware, and says which is missing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend.h"

namespace kotoba {

// What a device library exports under this name. On failure it returns null and fills in `failure`.
struct DeviceFailure {
  char code[32];
  char message[992];
};
inline constexpr const char* kDeviceEntryName = "kotoba_open_device";
// `interface`: kBackendInterface of the caller; `memory`: bytes the device may take, 0: as many as it should.
using DeviceEntry = Backend* (*)(uint64_t interface, int index, int64_t memory, DeviceFailure* failure);

// Changes with the layouts that both sides of the library must agree on.
inline constexpr uint64_t kBackendInterface = [] {
  uint64_t hash = 2;  // raise it when a method of Backend is added, moved or changed
  for (const uint64_t size : {sizeof(TensorView), sizeof(Epilogue), sizeof(Attention), sizeof(HeadNormRope),
                              sizeof(CopyTokens), sizeof(Conv2d), sizeof(GroupNorm), sizeof(Patches),
                              sizeof(Terms), sizeof(Block), sizeof(Backend), sizeof(kDTypes)})
    hash = hash * 1099511628211u ^ size;
  return hash;
}();

// `kind`: "cuda", "cuda:1", "cuda-sim"…; the library is kotoba_cuda.so, kotoba_cuda_sim.so. `memory` as
// above. ERR_DEVICE says what is missing and what to do.
std::shared_ptr<Backend> open_device_library(const std::string& kind, int64_t memory);

// Whether `kind` names a device that comes in a library.
bool is_library_device(const std::string& kind);

}  // namespace kotoba
