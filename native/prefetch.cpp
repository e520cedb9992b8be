#include "prefetch.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>

namespace kotoba {
namespace {

constexpr int64_t kStep =
    int64_t{8} << 20;  // bytes asked for at once; the file may be let go between two steps

int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("MemAvailable:")) return std::stoll(line.substr(13)) * 1024;
  return 0;
}

void read_ahead(std::weak_ptr<MappedFile> weak, const std::vector<ByteRange>& ranges) {
  for (const ByteRange& range : ranges) {
    for (int64_t done = 0; done < range.bytes; done += kStep) {
      const std::shared_ptr<MappedFile> file = weak.lock();
      if (!file) return;
      file->will_need(range.offset + done, std::min(kStep, range.bytes - done));
    }
  }
}

}  // namespace

void prefetch(std::shared_ptr<MappedFile> file, std::vector<ByteRange> ranges) {
  int64_t total = 0;
  for (const ByteRange& range : ranges) total += range.bytes;
  if (total > available_memory() / 2) return;
  try {
    std::thread([weak = std::weak_ptr(file), ranges = std::move(ranges)] {
      read_ahead(weak, ranges);
    }).detach();
  } catch (const std::system_error&) {
    // No thread to be had: the pages are read when they are touched.
  }
}

}  // namespace kotoba
