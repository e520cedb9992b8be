#include "failures.h"

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

namespace kotoba::sim {
namespace {

constexpr size_t kMebibytes = 8192;  // of memory, unless told otherwise

std::string played;
std::atomic<int64_t> launches_left{-1};  // -1: any number
std::atomic<bool> is_lost{false};

// The text after `name:`, "" after a name alone; null if it is not played.
const char* option(std::string_view name) {
  for (size_t at = 0; at < played.size();) {
    const size_t end = std::min(played.find(',', at), played.size());
    const std::string_view one(played.data() + at, end - at);
    if (one == name) return "";
    if (one.starts_with(name) && one[name.size()] == ':') return played.data() + at + name.size() + 1;
    at = end + 1;
  }
  return nullptr;
}

}  // namespace

void read_failures() {
  const char* text = std::getenv("KOTOBA_SIM");
  if (played == (text ? text : "")) return;
  played = text ? text : "";
  const char* launches = option("lost_after");
  launches_left = launches ? std::atoll(launches) : -1;
}

cudaError_t missing_gpu() {
  if (option("no_driver") || option("old_driver")) return cudaErrorInsufficientDriver;
  if (option("no_gpu")) return cudaErrorNoDevice;
  return option("busy") ? cudaErrorDevicesUnavailable : cudaSuccess;
}

int driver_version() { return option("no_driver") ? 0 : option("old_driver") ? 12040 : 13000; }
int card_major() { return option("old_card") ? 7 : 9; }
bool has_kernels() { return !option("no_kernels"); }

size_t card_memory() {
  const char* text = option("memory");
  return (text ? std::strtoull(text, nullptr, 10) : kMebibytes) << 20;
}

cudaError_t lost() { return is_lost ? cudaErrorIllegalAddress : cudaSuccess; }

void count_launch() {
  if (launches_left > 0 && --launches_left == 0) is_lost = true;
}

}  // namespace kotoba::sim
