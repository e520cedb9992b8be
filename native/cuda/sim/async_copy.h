// cp.async: copies from global to shared memory that a thread starts and later waits for, group by group.
// They happen during that wait, at the last moment; until then the target holds NaNs.
#pragma once

#include <cstring>

#include "block.h"

namespace kotoba::sim {

inline void check_copy(const void* shared, const void* global, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
    fault("cp.async: an address is not " + std::to_string(bytes) + "-aligned");
  if (!current_block->in_shared(shared)) fault("cp.async: the target is not in shared memory");
}

}  // namespace kotoba::sim

namespace kotoba::cuda::ptx {

// 16 bytes, zeros instead of *global unless `present`.
inline void cp_async_16(void* shared, const void* global, bool present = true) {
  sim::check_copy(shared, global, 16);
  std::memset(shared, 0xff, 16);
  sim::current_thread->copies.open.push_back([=] {
    if (present)
      std::memcpy(shared, global, 16);
    else
      std::memset(shared, 0, 16);
  });
}

inline void cp_async_commit() {
  sim::CopyGroups& copies = sim::current_thread->copies;
  copies.committed.push_back(std::move(copies.open));
  copies.open.clear();
}

// Until at most kPending groups of this thread are under way.
template <int kPending>
void cp_async_wait() {
  auto& groups = sim::current_thread->copies.committed;
  while (groups.size() > kPending) {
    for (const sim::Copy& copy : groups.front()) copy();
    groups.erase(groups.begin());
  }
}

}  // namespace kotoba::cuda::ptx
