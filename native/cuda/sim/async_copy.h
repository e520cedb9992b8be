// cp.async: copies from global to shared memory that a thread starts and later waits for, group by group.
// They happen during that wait, at the last moment; until then the target holds NaNs.
#pragma once

#include <cstring>

#include "block.h"
#include "memory.h"

namespace kotoba::cuda::ptx {

// 16 bytes, zeros instead of *global unless `present`.
inline void cp_async_16(void* shared, const void* global, bool present = true) {
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16)
    sim::fault("cp.async: an address is not 16-aligned");
  if (!sim::current_block->in_shared(shared)) sim::fault("cp.async: the target is not in shared memory");
  std::memset(shared, sim::kPoison, 16);
  sim::current_thread->copies.add([=] {
    if (present)
      std::memcpy(shared, global, 16);
    else
      std::memset(shared, 0, 16);
  });
}

inline void cp_async_commit() { sim::current_thread->copies.commit(); }

// Until at most kPending groups of this thread are under way.
template <int kPending>
void cp_async_wait() {
  sim::current_thread->copies.finish_all_but(kPending);
}

}  // namespace kotoba::cuda::ptx
