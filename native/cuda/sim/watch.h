// Turns what goes wrong with memory inside of kernels into faults: accesses that hit a guard page (SIGSEGV),
// misaligned accesses and indexes outside of arrays (checks that g++ puts into the kernels with
// -fsanitize=alignment,bounds, whose reports end here).
#pragma once

namespace kotoba::sim {

// While one lives, this host thread's memory faults are the running kernel's.
class WatchMemory {
 public:
  WatchMemory();
  ~WatchMemory();
  WatchMemory(const WatchMemory&) = delete;
  WatchMemory& operator=(const WatchMemory&) = delete;
};

}  // namespace kotoba::sim
