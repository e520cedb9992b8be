#include "device_library.h"

#include <dlfcn.h>

#include <charconv>
#include <filesystem>

#include "errors.h"

namespace kotoba {
namespace {

// "cuda:1" → "cuda", 1
struct DeviceName {
  std::string kind;
  int index = 0;
};

DeviceName parse(const std::string& name) {
  const size_t colon = name.find(':');
  if (colon == std::string::npos) return {name, 0};
  DeviceName parsed{name.substr(0, colon), 0};
  const char *first = name.data() + colon + 1, *last = name.data() + name.size();
  const auto [end, error] = std::from_chars(first, last, parsed.index);
  if (error != std::errc() || end != last || parsed.index < 0)
    throw Error("ERR_DEVICE", "device: expected a number after the colon, as in " + parsed.kind +
                                  ":1, got \"" + name + "\"");
  return parsed;
}

// The folder of the shared object that this code is in.
std::filesystem::path own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&own_folder), &info) == 0 || !info.dli_fname) return ".";
  return std::filesystem::path(info.dli_fname).parent_path();
}

std::string file_name(const std::string& kind) {
  return kind == "cuda-sim" ? "kotoba_cuda_sim.so" : "kotoba_cuda.so";
}

// Never closed: errors and blocks of memory that outlive the device point into it.
DeviceEntry open_entry(const std::string& kind) {
  const std::filesystem::path path = own_folder() / file_name(kind);
  if (!std::filesystem::exists(path))
    throw Error("ERR_DEVICE", kind == "cuda-sim"
                                  ? "device: cuda-sim is built for tests only: cmake -DKOTOBA_CUDA_SIM=ON"
                                  : "device: this build has no CUDA device. To build it (needs nvcc of CUDA "
                                    "13): npx cmake-js build "
                                    "--CDKOTOBA_CUDA=ON; without it, use the device cpu");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw Error("ERR_DEVICE", detail::join("device: cannot load ", path.string(), ": ", dlerror()));
  const auto entry = reinterpret_cast<DeviceEntry>(dlsym(library, kDeviceEntryName));
  if (!entry)
    throw Error("ERR_DEVICE", detail::join("device: ", path.string(), " is not a device of Kotoba"));
  return entry;
}

// Codes are string literals, so that errors may keep pointers to them.
const char* known_code(const std::string& code) {
  for (const char* known : {"ERR_OUT_OF_MEMORY", "ERR_ARGUMENT", "ERR_DEVICE_LOST"})
    if (code == known) return known;
  return "ERR_DEVICE";
}

}  // namespace

bool is_library_device(const std::string& kind) {
  const std::string name = kind.substr(0, kind.find(':'));
  return name == "cuda" || name == "cuda-sim";
}

std::shared_ptr<Backend> open_device_library(const std::string& kind, int64_t memory) {
  const DeviceName name = parse(kind);
  DeviceFailure failure = {};
  Backend* backend = open_entry(name.kind)(kBackendInterface, name.index, memory, &failure);
  if (!backend) throw Error(known_code(failure.code), failure.message);
  return std::shared_ptr<Backend>(backend);
}

}  // namespace kotoba
