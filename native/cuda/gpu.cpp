#include "gpu.h"

#include <algorithm>
#include <cstdlib>

namespace kotoba::cuda {
namespace {

constexpr int kOldestArch = 80;

std::string version_text(int version) { return detail::join(version / 1000, ".", version % 1000 / 10); }

// CUDA says no more than "insufficient" when there is no driver at all.
void require_driver() {
  int driver = 0, runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || cudaRuntimeGetVersion(&runtime) != cudaSuccess) return;
  if (driver == 0)
    throw Error("ERR_DEVICE", detail::join(kDeviceName,
                                           ": no NVIDIA driver is installed, or its libcuda.so.1 is not "
                                           "found: install one of CUDA ",
                                           version_text(runtime), " or newer, or use the device cpu"));
  if (driver / 1000 < runtime / 1000)
    throw Error("ERR_DEVICE",
                detail::join(kDeviceName, ": the NVIDIA driver is too old: it knows CUDA ",
                             version_text(driver), ", this build needs ", version_text(runtime),
                             " (driver 580 or newer): update the driver, or use the device cpu"));
}

}  // namespace

cudaDeviceProp open_gpu(int index) {
  require_driver();
  int count = 0;
  check(cudaGetDeviceCount(&count), "looking for GPUs");
  if (index < 0 || index >= count)
    throw Error("ERR_DEVICE", detail::join(kDeviceName, ": there is no GPU ", index, "; this machine has ",
                                           count, ", counted from 0"));
  check(cudaSetDevice(index), "choosing the device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "asking for the GPU's properties");
  const int arch = 10 * properties.major + properties.minor;
  if (arch < kOldestArch)
    throw Error("ERR_DEVICE",
                detail::join(kDeviceName, ": ", properties.name, " has compute capability ", properties.major,
                             ".", properties.minor, "; 8.0 (Ampere) or newer is needed: use the device cpu"));
  return properties;
}

std::string gpu_name(int index) { return index == 0 ? kDeviceName : detail::join(kDeviceName, ":", index); }

int64_t memory_budget(int64_t total, int64_t wanted) {
  const char* text = std::getenv("KOTOBA_VRAM");
  if (wanted == 0 && text && *text) {
    char* end = nullptr;
    const long long mebibytes = std::strtoll(text, &end, 10);
    require(*end == '\0' && mebibytes > 0 && mebibytes < int64_t{1} << 40,
            "KOTOBA_VRAM: expected a number of MiB, got \"", text, "\"");
    wanted = int64_t{mebibytes} << 20;
  }
  return wanted == 0 ? total - total / 10 : std::min(wanted, total);
}

}  // namespace kotoba::cuda
