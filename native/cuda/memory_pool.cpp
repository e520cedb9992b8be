#include "memory_pool.h"

#include <algorithm>

namespace kotoba::cuda {
namespace {

// The simulator watches each block by itself: there, nothing is cached and no size is rounded.
constexpr bool kCache = !kSimulated;

}  // namespace

MemoryPool::~MemoryPool() {
  cudaSetDevice(device_);
  for (const auto& [data, _] : blocks_) cudaFree(data);
}

std::byte* MemoryPool::allocate(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  bytes = std::max<int64_t>(bytes, 1);
  if (std::byte* data = take_cached(bytes)) return data;
  check(cudaSetDevice(device_), "choosing the device");  // threads have their own current device
  if (reserved_ + bytes > budget_) drop_cached();
  std::byte* data = reserved_ + bytes > budget_ ? nullptr : take_new(bytes);
  if (data) return data;
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error("ERR_OUT_OF_MEMORY",
              detail::join(kDeviceName, ": cannot allocate ", show_bytes(bytes), ": ", show_bytes(reserved_),
                           " in use of a budget of ", show_bytes(budget_), ", ",
                           show_bytes(static_cast<int64_t>(free)),
                           " free on the card; use a smaller picture, a "
                           "quantised model, or the device cpu"));
}

std::byte* MemoryPool::take_cached(int64_t bytes) {
  const auto found = free_.lower_bound(bytes);
  if (found == free_.end() || found->first > bytes + bytes / 8 + 512) return nullptr;
  std::byte* data = found->second;
  cached_ -= found->first;
  free_.erase(found);
  return data;
}

std::byte* MemoryPool::take_new(int64_t bytes) {
  void* data = nullptr;
  cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation && cached_ > 0) {
    drop_cached();
    status = cudaMalloc(&data, static_cast<size_t>(bytes));
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "allocating memory");
  auto* block = static_cast<std::byte*>(data);
  blocks_[block] = bytes;
  reserved_ += bytes;
  return block;
}

void MemoryPool::release(std::byte* data) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(data);
  if (found == blocks_.end()) return;
  cached_ += found->second;
  free_.emplace(found->second, data);
  if (!kCache) drop_cached();
}

void MemoryPool::drop_cached() noexcept {
  for (const auto& [bytes, data] : free_) {
    cudaFree(data);
    blocks_.erase(data);
    reserved_ -= bytes;
  }
  free_.clear();
  cached_ = 0;
}

}  // namespace kotoba::cuda
