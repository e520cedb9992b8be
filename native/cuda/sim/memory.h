// Device memory of the simulator. Every buffer has pages of its own between guard pages and ends right before
// one, so that an access outside of it faults where it happens; freed buffers stay inaccessible for a while.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace kotoba::sim {

class Memory {
 public:
  // At least 64-aligned, filled with NaNs; null when the card is full.
  void* allocate(size_t bytes);
  // The memory becomes inaccessible once every piece of work with a ticket below `ticket` is done.
  bool free(void* data, uint64_t ticket);
  void reclaim(uint64_t oldest_pending_ticket);

  bool holds(const void* data, size_t bytes) const;
  // Where `address` lies, for messages: "64 bytes past the end of a buffer of 4096 bytes".
  std::string describe(const void* address) const;
  // Whether bytes after the end of a buffer were overwritten (less than 64: the rest is a guard page).
  std::optional<std::string> overrun() const;

  size_t used() const;

 private:
  struct Buffer {
    size_t bytes;
    char* area;  // first guard page
    size_t area_bytes;
    uint64_t ticket = 0;
  };
  const Buffer* buffer_near(const void* address, const char** start) const;
  void retire(std::map<char*, Buffer>::iterator buffer);

  mutable std::mutex mutex_;
  std::map<char*, Buffer> buffers_;  // by their first byte
  std::deque<char*> dying_;          // freed, their work not done
  std::deque<Buffer> quarantine_;    // inaccessible, address space not given back
  size_t used_ = 0;
};

Memory& memory();

}  // namespace kotoba::sim
