// The simulated card and its driver: what they are, and what their errors are called.
#include <mutex>
#include <string>

#include "block.h"
#include "failures.h"

namespace kotoba::sim {
namespace {

constexpr int kDevices = 2;
std::mutex fault_mutex;
std::string fault_text;

}  // namespace

void set_fault(const char* text) {
  const std::lock_guard lock(fault_mutex);
  fault_text = text;
}

}  // namespace kotoba::sim

using namespace kotoba::sim;

// clang-format off
#define KOTOBA_ERROR_NAMES(X) \
  X(cudaSuccess) X(cudaErrorInvalidValue) X(cudaErrorMemoryAllocation) \
  X(cudaErrorInvalidConfiguration) X(cudaErrorInsufficientDriver) X(cudaErrorDevicesUnavailable) \
  X(cudaErrorNoDevice) X(cudaErrorInvalidDevice) X(cudaErrorNoKernelImageForDevice) \
  X(cudaErrorIllegalAddress) X(cudaErrorLaunchFailure) X(cudaErrorStreamCaptureUnsupported) \
  X(cudaErrorStreamCaptureInvalidated) X(cudaErrorStreamCaptureIsolation) X(cudaErrorCapturedEvent)
// clang-format on

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define X(name) \
  case name:    \
    return #name;
    KOTOBA_ERROR_NAMES(X)
#undef X
    default:
      return "cudaErrorUnknown";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  static thread_local std::string text;
  const std::lock_guard lock(fault_mutex);
  text = error == cudaErrorLaunchFailure ? fault_text : cudaGetErrorName(error);
  return text.c_str();
}

cudaError_t cudaDriverGetVersion(int* version) {
  read_failures();
  return *version = driver_version(), cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  read_failures();
  return *count = kDevices, missing_gpu();
}

cudaError_t cudaSetDevice(int device) {
  return device >= 0 && device < kDevices ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (const cudaError_t error = cudaSetDevice(device)) return error;
  *properties = {"simulated GPU", card_major(), 0, 4, card_memory(), Block::kAllShared};
  return cudaSuccess;
}
