// Device memory, cached. All work runs on one stream, in order, so memory that was given back may be handed
// out at once: what comes later cannot overtake what still uses it. Nothing is returned to the driver (which
// would wait for the GPU) until the budget or the card is full.
#pragma once

#include <map>
#include <mutex>

#include "status.h"

namespace kotoba::cuda {

class MemoryPool {
 public:
  // `budget` bytes at most are taken from the driver.
  MemoryPool(int device, int64_t budget) : device_(device), budget_(budget) {}
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // 256-aligned (64 on the simulator). From any thread. ERR_OUT_OF_MEMORY tells the sizes.
  std::byte* allocate(int64_t bytes);
  void release(std::byte* data) noexcept;

 private:
  std::byte* take_cached(int64_t bytes);
  std::byte* take_new(int64_t bytes);
  void drop_cached() noexcept;

  std::mutex mutex_;
  int device_;
  int64_t budget_;
  int64_t reserved_ = 0, cached_ = 0;        // bytes
  std::map<std::byte*, int64_t> blocks_;     // every block by its size
  std::multimap<int64_t, std::byte*> free_;  // by size
};

// A piece of the pool for one op.
class Scratch {
 public:
  Scratch(MemoryPool& pool, int64_t bytes) : pool_(pool), data_(pool.allocate(bytes)) {}
  ~Scratch() { pool_.release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  MemoryPool& pool_;
  std::byte* data_;
};

}  // namespace kotoba::cuda
