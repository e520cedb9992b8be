// An adopted weight, and where it is now.
#pragma once

#include <exception>
#include <memory>

#include "../mapped_file.h"
#include "memory_pool.h"
#include "stream.h"

namespace kotoba::cuda {

struct Weight;

// Memory that weights pass through one after the other.
struct Slot {
  LongMemory memory;
  Weight* holds = nullptr;
  bool filling = false;  // the uploader is about it
  bool in_use = false;   // by the op that runs now
  Event used;            // after the last op that read it
};

// All but the constants is guarded by the store's mutex.
struct Weight {
  // The address that tensors have. It names the weight and is no memory: whoever reads it without asking the
  // store faults.
  std::byte* const name;
  const int64_t bytes;
  const std::shared_ptr<MappedFile> file;
  const int64_t offset;
  const bool is_small;  // stays where it is: it is not worth the room it takes

  // Where it is: in memory of its own, in a slot, or only in its file.
  LongMemory own;
  Slot* slot = nullptr;
  std::byte* memory() const { return slot ? slot->memory.data() : own.data(); }

  // How far the copy to memory() is. kArrived: the ops' stream need not wait for it any more.
  enum class Copy { kNone, kWaiting, kRunning, kIssued, kArrived } copy = Copy::kNone;
  Event arrived;
  std::exception_ptr failure;  // of the copy

  // What is known of its uses, which are counted over all weights; 0: none yet
  int64_t last_use = 0, use_before = 0;
  std::byte* next = nullptr;  // what was used after it, or adopted after it
  bool read_once = false;     // by ops that read little of it or only once: the first to go
  bool in_use = false;        // by the op that runs now

  Weight(std::byte* n, int64_t size, std::shared_ptr<MappedFile> f, int64_t at, bool small)
      : name(n), bytes(size), file(std::move(f)), offset(at), is_small(small) {}
};

}  // namespace kotoba::cuda
