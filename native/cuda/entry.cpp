// The one symbol that the library exports.
#include <cstdio>

#include "../device_library.h"
#include "cuda_backend.h"

namespace kotoba::cuda {
namespace {

void fill(DeviceFailure* failure, const char* code, const char* message) {
  std::snprintf(failure->code, sizeof failure->code, "%s", code);
  std::snprintf(failure->message, sizeof failure->message, "%s", message);
}

}  // namespace
}  // namespace kotoba::cuda

extern "C" __attribute__((visibility("default"))) kotoba::Backend* kotoba_open_device(
    uint64_t interface, int index, int64_t memory, kotoba::DeviceFailure* failure) {
  using namespace kotoba;
  if (interface != kBackendInterface) {
    cuda::fill(failure, "ERR_DEVICE",
               "device: the CUDA library and the addon are from different builds: build both again");
    return nullptr;
  }
  try {
    return new cuda::CudaBackend(index, memory);
  } catch (const Error& error) {
    cuda::fill(failure, error.code(), error.what());
  } catch (const std::exception& error) {
    cuda::fill(failure, "ERR_DEVICE", error.what());
  }
  return nullptr;
}
