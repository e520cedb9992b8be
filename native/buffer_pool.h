// Stream-ordered caching pool of device memory. Memory released by the enqueuing thread is handed out again
// at once, while commands that use it may still be queued: the queue is ordered, so a later command cannot
// overtake them. That keeps the peak of a network at what one layer needs. Used from the enqueuing thread
// only.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "backend.h"

namespace kotoba {

class BufferPool {
 public:
  explicit BufferPool(std::shared_ptr<Backend> backend);

  BlockPtr acquire(int64_t bytes);  // at least `bytes`; ERR_OUT_OF_MEMORY
  void release(BlockPtr block);
  // Takes free blocks out until at most `keep` bytes are cached; they go back to the system with the last
  // pointer.
  std::vector<BlockPtr> trim(int64_t keep);
  int64_t cached() const { return cached_; }
  // Bytes taken from the backend and not given back yet, in use or cached.
  int64_t reserved() const { return reserved_->load(); }

  // While a capture runs, released blocks serve only later commands of the same capture; afterwards they
  // belong to the recording, whose commands keep them alive: nothing else may reuse what a replay will write.
  void begin_capture() { capturing_ = true; }
  void end_capture();

 private:
  using FreeList = std::multimap<int64_t, BlockPtr>;
  int64_t size_class(int64_t bytes) const;
  std::byte* allocate(int64_t size);

  std::shared_ptr<Backend> backend_;
  bool exact_;  // every tensor has memory of its own, of its own size
  FreeList free_;
  int64_t cached_ = 0;
  std::shared_ptr<std::atomic<int64_t>> reserved_ = std::make_shared<std::atomic<int64_t>>(0);
  bool capturing_ = false;
  FreeList captured_free_;
  std::vector<BlockPtr> captured_;
};

}  // namespace kotoba
