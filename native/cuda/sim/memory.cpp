#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "failures.h"

namespace kotoba::sim {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 64;
constexpr size_t kQuarantine = 512;  // buffers
constexpr int kPoison = 0xff;        // bytes of a NaN in every float format

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

Memory& memory() {
  static auto* instance = new Memory;  // outlives the threads that still use it at exit
  return *instance;
}

void* Memory::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  const size_t data_bytes = round_up(std::max<size_t>(bytes, 1), kAlignment);
  if (used_ + data_bytes > card_memory()) return nullptr;
  const size_t pages = round_up(data_bytes, kPage);
  void* area =
      mmap(nullptr, pages + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return nullptr;
  char* first = static_cast<char*>(area) + kPage;
  if (mprotect(first, pages, PROT_READ | PROT_WRITE) != 0) {
    munmap(area, pages + 2 * kPage);
    return nullptr;
  }
  std::memset(first, kPoison, pages);
  char* data = first + pages - data_bytes;
  buffers_[data] = {bytes, static_cast<char*>(area), pages + 2 * kPage};
  used_ += data_bytes;
  return data;
}

bool Memory::free(void* data, uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  const auto found = buffers_.find(static_cast<char*>(data));
  if (found == buffers_.end() || found->second.ticket != 0) return false;
  found->second.ticket = ticket;
  dying_.push_back(found->first);
  return true;
}

void Memory::reclaim(uint64_t oldest_pending_ticket) {
  const std::lock_guard lock(mutex_);
  std::erase_if(dying_, [&](char* data) {
    const auto buffer = buffers_.find(data);
    if (buffer->second.ticket > oldest_pending_ticket) return false;
    retire(buffer);
    return true;
  });
}

void Memory::retire(std::map<char*, Buffer>::iterator buffer) {
  const Buffer& b = buffer->second;
  madvise(b.area, b.area_bytes, MADV_DONTNEED);
  mprotect(b.area, b.area_bytes, PROT_NONE);
  used_ -= round_up(std::max<size_t>(b.bytes, 1), kAlignment);
  quarantine_.push_back(b);
  buffers_.erase(buffer);
  if (quarantine_.size() <= kQuarantine) return;
  munmap(quarantine_.front().area, quarantine_.front().area_bytes);
  quarantine_.pop_front();
}

const Memory::Buffer* Memory::buffer_near(const void* address, const char** start) const {
  for (const auto& [data, buffer] : buffers_)
    if (address >= buffer.area && address < buffer.area + buffer.area_bytes) {
      *start = data;
      return &buffer;
    }
  return nullptr;
}

bool Memory::holds(const void* data, size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const char* start = nullptr;
  const Buffer* buffer = buffer_near(data, &start);
  const char* first = static_cast<const char*>(data);
  return buffer && first >= start && bytes <= buffer->bytes && first + bytes <= start + buffer->bytes;
}

std::string Memory::describe(const void* address) const {
  const std::lock_guard lock(mutex_);
  const char* start = nullptr;
  const char* at = static_cast<const char*>(address);
  if (const Buffer* buffer = buffer_near(address, &start)) {
    const std::string of = " a buffer of " + std::to_string(buffer->bytes) + " bytes";
    if (at < start) return std::to_string(start - at) + " bytes before the start of" + of;
    if (at >= start + buffer->bytes)
      return std::to_string(at - start - buffer->bytes) + " bytes past the end of" + of;
    return "byte " + std::to_string(at - start) + " of" + of;
  }
  for (const Buffer& buffer : quarantine_)
    if (at >= buffer.area && at < buffer.area + buffer.area_bytes)
      return "a freed buffer of " + std::to_string(buffer.bytes) + " bytes";
  return "no device buffer";
}

std::optional<std::string> Memory::overrun() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [data, buffer] : buffers_) {
    const char* end = data + round_up(std::max<size_t>(buffer.bytes, 1), kAlignment);
    for (const char* p = data + buffer.bytes; p < end; ++p)
      if (*p != static_cast<char>(kPoison))
        return "write " + std::to_string(p - data - buffer.bytes) + " bytes past the end of a buffer of " +
               std::to_string(buffer.bytes) + " bytes";
  }
  return std::nullopt;
}

size_t Memory::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

}  // namespace kotoba::sim
