#include "card.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "runtime.h"

namespace kotoba::sim {
namespace {

constexpr int kDevices = 2;

std::mutex mutex;
std::string played;                      // KOTOBA_SIM when it was read
std::map<std::string, int64_t> options;  // its names, and the numbers that follow them
std::atomic<bool> lost{false};

// Unless it has changed, lost_after goes on counting.
void read_options() {
  const std::lock_guard lock(mutex);
  const char* text = std::getenv("KOTOBA_SIM");
  if (played == (text ? text : "")) return;
  played = text ? text : "";
  options.clear();
  std::istringstream list(played);
  for (std::string name; std::getline(list, name, ',');) {
    const size_t colon = name.find(':');
    options[name.substr(0, colon)] = colon == std::string::npos ? 1 : std::stoll(name.substr(colon + 1));
  }
}

int64_t option(const char* name, int64_t otherwise = 0) {
  const std::lock_guard lock(mutex);
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

}  // namespace

size_t card_memory() { return static_cast<size_t>(option("memory", 8192)) << 20; }
bool has_kernels() { return !option("no_kernels"); }
bool is_lost() { return lost; }

void count_launch() {
  const std::lock_guard lock(mutex);
  const auto left = options.find("lost_after");
  if (left != options.end() && --left->second == 0) lost = true;
}

}  // namespace kotoba::sim

using namespace kotoba::sim;

cudaError_t cudaDriverGetVersion(int* version) {
  read_options();
  *version = option("no_driver") ? 0 : option("old_driver") ? 12040 : 13000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  read_options();
  *count = kDevices;
  if (option("no_driver") || option("old_driver")) return cudaErrorInsufficientDriver;
  if (option("no_gpu")) return cudaErrorNoDevice;
  return option("busy") ? cudaErrorDevicesUnavailable : cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device >= 0 && device < kDevices ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const int major = option("old_card") ? 7 : 9;
  *properties = {"simulated GPU", major, 0, 4, card_memory(), Block::kAllShared};
  return cudaSetDevice(device);
}
