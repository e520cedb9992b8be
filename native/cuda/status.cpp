#include "status.h"

#include <cstdio>

namespace kotoba::cuda {
namespace {

// After these a process cannot use the GPU again: every later call fails with the same.
bool is_lost(cudaError_t status) {
  switch (status) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

// What a user can do about it; empty if there is nothing to add to CUDA's own words.
std::string advice(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
      return "the NVIDIA driver is missing or older than this build needs (CUDA 13, driver 580 or newer): "
             "install or update it, or use the device cpu";
    case cudaErrorNoDevice:
      return "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it: use the device cpu";
    case cudaErrorNoKernelImageForDevice:
      return "this build has no kernels for this GPU: build it on this machine (npm run build:native), or "
             "use "
             "the device cpu";
    case cudaErrorDevicesUnavailable:
      return "another program uses the GPU exclusively: end it, or use the device cpu";
    case cudaErrorSystemDriverMismatch:
      return "the loaded driver and its library differ: restart the machine after a driver update";
    case cudaErrorECCUncorrectable:
      return "the GPU reports a memory defect: reset it or take another one, and start this program again";
    default:
      return is_lost(status)
                 ? "the GPU is lost to this program: start it again; if that fails too, see dmesg "
                   "for NVRM Xid messages, or use the device cpu"
                 : "";
  }
}

const char* code_of(cudaError_t status) {
  if (status == cudaErrorMemoryAllocation) return "ERR_OUT_OF_MEMORY";
  return is_lost(status) ? "ERR_DEVICE_LOST" : "ERR_DEVICE";
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // cleared, so that it is not reported again by somebody else
  const std::string hint = advice(status);
  throw Error(code_of(status), detail::join(kDeviceName, ": ", what, ": ", cudaGetErrorString(status), " (",
                                            cudaGetErrorName(status), ")", hint.empty() ? "" : "; ", hint));
}

std::string show_bytes(int64_t bytes) {
  char text[48];
  if (bytes < int64_t{1} << 20)
    std::snprintf(text, sizeof text, "%lld bytes", static_cast<long long>(bytes));
  else if (bytes < int64_t{1} << 30)
    std::snprintf(text, sizeof text, "%.2f MiB", static_cast<double>(bytes) / (1 << 20));
  else
    std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / (1 << 30));
  return text;
}

}  // namespace kotoba::cuda
