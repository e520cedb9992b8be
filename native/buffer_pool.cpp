#include "buffer_pool.h"

#include <algorithm>
#include <bit>

#include "sanitizer.h"

namespace kotoba {
namespace {

BlockPtr take(std::multimap<int64_t, BlockPtr>& list, int64_t size) {
  const auto found = list.find(size);
  if (found == list.end()) return nullptr;
  BlockPtr block = std::move(found->second);
  list.erase(found);
  return block;
}

}  // namespace

BufferPool::BufferPool(std::shared_ptr<Backend> backend)
    : backend_(std::move(backend)), exact_(kAddressSanitizer || backend_->watches_memory()) {}

// Rounds up to one of eight steps per power of two, so that nearly equal sizes share blocks (waste < 12.5 %).
int64_t BufferPool::size_class(int64_t bytes) const {
  if (exact_) return std::max<int64_t>(bytes, 1);
  const uint64_t n = static_cast<uint64_t>(std::max<int64_t>(bytes, 512));
  const uint64_t step = std::bit_floor(n) / 8;
  return static_cast<int64_t>((n + step - 1) / step * step);
}

// Where the device has to make room, free blocks of other sizes go before weights do.
std::byte* BufferPool::allocate(int64_t size) {
  const DeviceUse use = backend_->use();
  if (use.budget > 0 && size > use.budget - use.used) trim(0);
  return backend_->allocate(size);
}

BlockPtr BufferPool::acquire(int64_t bytes) {
  const int64_t size = size_class(bytes);
  if (capturing_) {
    if (BlockPtr block = take(captured_free_, size)) return block;
  } else if (BlockPtr block = take(free_, size)) {
    cached_ -= size;
    return block;
  }
  std::byte* data = allocate(size);
  reserved_->fetch_add(size);
  auto block = std::make_shared<Block>(data, size, [backend = backend_, reserved = reserved_, data, size] {
    backend->release(data, size);
    reserved->fetch_sub(size);
  });
  if (capturing_) captured_.push_back(block);
  return block;
}

void BufferPool::release(BlockPtr block) {
  if (block->recorded || exact_) return;
  if (capturing_) {
    captured_.push_back(block);
    captured_free_.emplace(block->bytes, std::move(block));
    return;
  }
  cached_ += block->bytes;
  free_.emplace(block->bytes, std::move(block));
}

std::vector<BlockPtr> BufferPool::trim(int64_t keep) {
  std::vector<BlockPtr> dropped;
  while (cached_ > keep) {
    const auto largest = std::prev(free_.end());
    cached_ -= largest->first;
    dropped.push_back(std::move(largest->second));
    free_.erase(largest);
  }
  return dropped;
}

void BufferPool::end_capture() {
  capturing_ = false;
  for (const BlockPtr& block : captured_) block->recorded = true;
  captured_.clear();
  captured_free_.clear();
}

}  // namespace kotoba
