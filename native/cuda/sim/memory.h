// Device memory of the simulator, and pinned host memory. Every buffer has pages of its own between guard
// pages and ends right before one, so that an access outside of it faults where it happens; freed buffers
// stay inaccessible for a while.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace kotoba::sim {

constexpr size_t kPage = 4096;  // bytes
constexpr int kPoison = 0xff;   // bytes of a NaN in every float format

// Whole pages that may be read and written, between two that may not be touched. Throws std::bad_alloc.
std::shared_ptr<std::byte> guarded_pages(size_t bytes);

class Memory {
 public:
  explicit Memory(size_t (*capacity)()) : capacity_(capacity) {}

  // At least 64-aligned, filled with NaNs; null when there is no room.
  void* allocate(size_t bytes);
  // The memory becomes inaccessible once every piece of work with a ticket below `ticket` is done.
  bool free(void* data, uint64_t ticket);
  void reclaim(uint64_t oldest_pending_ticket);

  bool holds(const void* data, size_t bytes) const;
  // Where `address` lies, for messages: "64 bytes past the end of a buffer of 4096 bytes".
  std::string describe(const void* address) const;
  // What is wrong if bytes after the end of a buffer were overwritten (less than 64: the rest is a guard
  // page).
  std::optional<std::string> overrun() const;

  size_t used() const;

 private:
  struct Buffer {
    size_t bytes;  // asked for
    std::shared_ptr<std::byte> pages;
    size_t page_bytes;
    uint64_t ticket = 0;  // of free

    bool is_near(const void* address) const;  // in its pages or their guards
  };
  using Buffers = std::map<std::byte*, Buffer>;  // by their first byte
  Buffers::const_iterator near(const void* address) const;

  size_t (*capacity_)();  // bytes
  mutable std::mutex mutex_;
  Buffers buffers_;
  std::vector<std::byte*> dying_;  // freed, their work not done
  std::deque<Buffer> freed_;       // inaccessible, address space not given back
  size_t used_ = 0;
};

Memory& memory();         // of the card
Memory& pinned_memory();  // of the host

}  // namespace kotoba::sim
