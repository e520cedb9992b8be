#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "cudart/card.h"

namespace kotoba::sim {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kQuarantine = 512;  // buffers

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
size_t padded(size_t bytes) { return round_up(std::max<size_t>(bytes, 1), kAlignment); }

std::string buffer_of(size_t bytes) { return "buffer of " + std::to_string(bytes) + " bytes"; }

}  // namespace

std::shared_ptr<std::byte> guarded_pages(size_t bytes) {
  const size_t all = bytes + 2 * kPage;
  void* area = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) throw std::bad_alloc();
  std::byte* first = static_cast<std::byte*>(area) + kPage;
  std::shared_ptr<std::byte> pages(first, [all](std::byte* p) { munmap(p - kPage, all); });
  if (mprotect(first, bytes, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  return pages;
}

// Both outlive the threads that still use them at exit.
Memory& memory() {
  static auto* card = new Memory(card_memory);
  return *card;
}
Memory& pinned_memory() {
  static auto* host = new Memory([] { return SIZE_MAX; });
  return *host;
}

void* Memory::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (used_ + padded(bytes) > capacity_()) return nullptr;
  const size_t page_bytes = round_up(padded(bytes), kPage);
  const auto pages = guarded_pages(page_bytes);
  std::memset(pages.get(), kPoison, page_bytes);
  std::byte* data = pages.get() + page_bytes - padded(bytes);
  buffers_[data] = {bytes, pages, page_bytes};
  used_ += padded(bytes);
  return data;
}

bool Memory::free(void* data, uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  const auto found = buffers_.find(static_cast<std::byte*>(data));
  if (found == buffers_.end() || found->second.ticket != 0) return false;
  found->second.ticket = ticket;
  dying_.push_back(found->first);
  return true;
}

void Memory::reclaim(uint64_t oldest_pending_ticket) {
  const std::lock_guard lock(mutex_);
  std::erase_if(dying_, [&](std::byte* data) {
    const Buffer& buffer = buffers_.at(data);
    if (buffer.ticket > oldest_pending_ticket) return false;
    madvise(buffer.pages.get(), buffer.page_bytes, MADV_DONTNEED);
    mprotect(buffer.pages.get(), buffer.page_bytes, PROT_NONE);
    used_ -= padded(buffer.bytes);
    freed_.push_back(buffer);
    if (freed_.size() > kQuarantine) freed_.pop_front();
    buffers_.erase(data);
    return true;
  });
}

bool Memory::Buffer::is_near(const void* address) const {
  return address >= pages.get() - kPage && address < pages.get() + page_bytes + kPage;
}

Memory::Buffers::const_iterator Memory::near(const void* address) const {
  return std::ranges::find_if(buffers_, [&](const auto& each) { return each.second.is_near(address); });
}

bool Memory::holds(const void* data, size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto found = near(data);
  if (found == buffers_.end() || data < found->first) return false;
  const auto offset = static_cast<size_t>(static_cast<const std::byte*>(data) - found->first);
  return offset + bytes <= found->second.bytes;
}

std::string Memory::describe(const void* address) const {
  const std::lock_guard lock(mutex_);
  if (const auto found = near(address); found != buffers_.end()) {
    const size_t bytes = found->second.bytes;
    const auto offset = static_cast<const std::byte*>(address) - found->first;
    const auto past = offset - static_cast<ptrdiff_t>(bytes);
    if (offset < 0) return std::to_string(-offset) + " bytes before the start of a " + buffer_of(bytes);
    if (past >= 0) return std::to_string(past) + " bytes past the end of a " + buffer_of(bytes);
    return "byte " + std::to_string(offset) + " of a " + buffer_of(bytes);
  }
  for (const Buffer& buffer : freed_)
    if (buffer.is_near(address)) return "a freed " + buffer_of(buffer.bytes);
  return "no device buffer";
}

std::optional<std::string> Memory::overrun() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [data, buffer] : buffers_)
    for (size_t i = buffer.bytes; i < padded(buffer.bytes); ++i)
      if (data[i] != std::byte{kPoison})
        return "write " + std::to_string(i - buffer.bytes) + " bytes past the end of a " +
               buffer_of(buffer.bytes);
  return std::nullopt;
}

size_t Memory::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

}  // namespace kotoba::sim
