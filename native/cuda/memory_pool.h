// Device memory, in two kinds.
//   allocate: for tensors and scratch. Cached: all ops run on one stream, in order, so memory that was given
//     back may be handed out at once: what comes later cannot overtake what still uses it. Nothing goes back
//     to the driver (which would wait for the GPU) until the budget or the card is full.
//   take: for what stays long (weights, their other forms). Each piece is the driver's own, so that giving it
//     back makes exactly that much room and other streams may write it at once.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "segments.h"
#include "status.h"

namespace kotoba::cuda {

class MemoryPool {
 public:
  // Asks for `bytes` of taken memory back; false if nothing was given. Called without the pool's lock.
  using Reclaim = std::function<bool(int64_t bytes)>;
  struct Use {
    int64_t budget, used, peak;  // bytes
  };

  // `budget` bytes at most are taken from the driver. Without `caches` every block is one of the driver, of
  // its exact size: the simulator watches each by itself.
  MemoryPool(int device, int64_t budget, bool caches = !kSimulated)
      : device_(device), budget_(budget), caches_(caches) {}
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // 256-aligned (64 on the simulator). From any thread. ERR_OUT_OF_MEMORY tells the sizes.
  std::byte* allocate(int64_t bytes);
  void release(std::byte* data) noexcept;
  void on_shortage(Reclaim reclaim);  // empty: nobody has any

  // Null if less than `spare` bytes of the budget would be left. From any thread.
  std::byte* take(int64_t bytes, int64_t spare);
  void give(std::byte* data, int64_t bytes) noexcept;  // waits for the GPU

  // What this thread allocates between the two stays out of the pool, to be released by whoever gets it: a
  // graph writes it at every launch. Within the capture it is used again as always.
  void begin_capture();
  std::vector<std::byte*> end_capture();

  Use use() const;
  Error exhausted(int64_t bytes, const char* what) const;

 private:
  struct Capture {
    std::thread::id thread;
    std::map<std::byte*, int64_t> blocks;     // bytes by address
    std::multimap<int64_t, std::byte*> free;  // by size
  };
  std::byte* take_block(int64_t bytes);
  std::byte* take_captured(int64_t bytes);
  bool add_segment(Segments& segments, int64_t bytes);
  std::byte* from_driver(int64_t bytes);
  void to_driver(std::byte* data, int64_t bytes) noexcept;
  void drop_free() noexcept;
  bool is_capturing() const { return capture_ && capture_->thread == std::this_thread::get_id(); }
  int64_t used() const { return reserved_ - small_.free_bytes() - large_.free_bytes(); }

  mutable std::mutex mutex_;
  const int device_;
  const int64_t budget_;
  const bool caches_;
  int64_t reserved_ = 0, peak_ = 0;      // bytes
  Segments small_, large_;               // apart, so that small blocks do not cut up large ones
  std::map<std::byte*, int64_t> exact_;  // blocks of a pool that does not cache
  std::optional<Capture> capture_;
  Reclaim reclaim_;
};

// A piece of the pool for one op.
class Scratch {
 public:
  Scratch(MemoryPool& pool, int64_t bytes) : pool_(pool), data_(pool.allocate(bytes)) {}
  ~Scratch() {
    if (data_) pool_.release(data_);
  }
  Scratch(Scratch&& other) noexcept : pool_(other.pool_), data_(std::exchange(other.data_, nullptr)) {}
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  MemoryPool& pool_;
  std::byte* data_;
};

// Taken memory, or none.
class LongMemory {
 public:
  LongMemory() = default;
  LongMemory(std::shared_ptr<MemoryPool> pool, int64_t bytes, int64_t spare)
      : pool_(std::move(pool)), data_(pool_->take(bytes, spare)), bytes_(bytes) {}
  ~LongMemory() {
    if (data_) pool_->give(data_, bytes_);
  }
  LongMemory(LongMemory&& other) noexcept { swap(other); }
  LongMemory& operator=(LongMemory&& other) noexcept {
    LongMemory(std::move(other)).swap(*this);
    return *this;
  }

  std::byte* data() const { return data_; }
  int64_t bytes() const { return data_ ? bytes_ : 0; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  void swap(LongMemory& other) noexcept {
    pool_.swap(other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  std::shared_ptr<MemoryPool> pool_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace kotoba::cuda
