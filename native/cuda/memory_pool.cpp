#include "memory_pool.h"

#include <algorithm>

namespace kotoba::cuda {
namespace {

constexpr int64_t kSmall = int64_t{1} << 20;         // bytes; larger blocks are cut from large segments
constexpr int64_t kSmallSegment = int64_t{4} << 20;  // bytes
constexpr int64_t kLargeSegment = int64_t{64} << 20;
constexpr int64_t kPage = int64_t{2} << 20;  // the driver's; larger segments are whole ones

int64_t round_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

MemoryPool::~MemoryPool() {
  cudaSetDevice(device_);
  drop_free();
  for (const auto& [data, _] : exact_) cudaFree(data);
}

void MemoryPool::on_shortage(Reclaim reclaim) {
  const std::lock_guard lock(mutex_);
  reclaim_ = std::move(reclaim);
}

std::byte* MemoryPool::allocate(int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 1);
  while (true) {
    Reclaim reclaim;
    int64_t missing = bytes;
    {
      const std::lock_guard lock(mutex_);
      if (std::byte* data = take_block(bytes)) return data;
      reclaim = reclaim_;
      // Where the budget would do, the card is full or cut into pieces that are too small.
      if (bytes > budget_ - used()) missing = bytes - (budget_ - used());
    }
    if (!reclaim || !reclaim(missing)) throw exhausted(bytes, "");
  }
}

std::byte* MemoryPool::take_block(int64_t bytes) {
  std::byte* data = is_capturing() ? take_captured(bytes) : nullptr;
  if (data) return data;
  if (caches_) {
    Segments& segments = bytes < kSmall ? small_ : large_;
    data = segments.take(bytes);
    if (!data && add_segment(segments, bytes)) data = segments.take(bytes);
  } else if (bytes <= budget_ - reserved_) {
    data = from_driver(bytes);
    if (data) exact_[data] = bytes;
  }
  if (data && is_capturing()) capture_->blocks[data] = bytes;
  peak_ = std::max(peak_, used());
  return data;
}

// Any block of the capture that is free and at most twice as large.
std::byte* MemoryPool::take_captured(int64_t bytes) {
  const auto found = capture_->free.lower_bound(bytes);
  if (found == capture_->free.end() || found->first > 2 * bytes) return nullptr;
  std::byte* data = found->second;
  capture_->free.erase(found);
  return data;
}

// A segment for `bytes` and more to come, or for them alone where there is not more.
bool MemoryPool::add_segment(Segments& segments, int64_t bytes) {
  const int64_t exact = round_up(bytes, Segments::kStep);
  const int64_t wanted = bytes < kSmall ? kSmallSegment : std::max(kLargeSegment, round_up(bytes, kPage));
  for (const int64_t size : {wanted, exact}) {
    if (size > budget_ - reserved_) drop_free();
    if (size > budget_ - reserved_) continue;
    if (std::byte* data = from_driver(size)) {
      segments.add(data, size);
      return true;
    }
  }
  return false;
}

// Null if the card is full.
std::byte* MemoryPool::from_driver(int64_t bytes) {
  check(cudaSetDevice(device_), "choosing the device");  // threads have their own current device
  void* data = nullptr;
  cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    drop_free();
    status = cudaMalloc(&data, static_cast<size_t>(bytes));
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "allocating memory");
  reserved_ += bytes;
  return static_cast<std::byte*>(data);
}

void MemoryPool::to_driver(std::byte* data, int64_t bytes) noexcept {
  cudaSetDevice(device_);
  cudaFree(data);
  reserved_ -= bytes;
}

void MemoryPool::drop_free() noexcept {
  for (Segments* segments : {&small_, &large_})
    for (const auto& [data, bytes] : segments->remove_free()) to_driver(data, bytes);
}

void MemoryPool::release(std::byte* data) noexcept {
  const std::lock_guard lock(mutex_);
  if (is_capturing())
    if (const auto own = capture_->blocks.find(data); own != capture_->blocks.end()) {
      capture_->free.emplace(own->second, data);
      return;
    }
  if (small_.give(data) || large_.give(data)) return;
  const auto found = exact_.find(data);
  if (found == exact_.end()) return;
  to_driver(data, found->second);
  exact_.erase(found);
}

std::byte* MemoryPool::take(int64_t bytes, int64_t spare) {
  const std::lock_guard lock(mutex_);
  bytes = std::max<int64_t>(bytes, 1);
  if (bytes > budget_ - used() - spare) return nullptr;
  if (bytes > budget_ - reserved_) drop_free();
  std::byte* data = bytes > budget_ - reserved_ ? nullptr : from_driver(bytes);
  peak_ = std::max(peak_, used());
  return data;
}

void MemoryPool::give(std::byte* data, int64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  to_driver(data, std::max<int64_t>(bytes, 1));
}

void MemoryPool::begin_capture() {
  const std::lock_guard lock(mutex_);
  capture_ = Capture{std::this_thread::get_id(), {}, {}};
}

std::vector<std::byte*> MemoryPool::end_capture() {
  const std::lock_guard lock(mutex_);
  std::vector<std::byte*> blocks;
  for (const auto& [data, _] : capture_->blocks) blocks.push_back(data);
  capture_.reset();
  return blocks;
}

MemoryPool::Use MemoryPool::use() const {
  const std::lock_guard lock(mutex_);
  return {budget_, used(), peak_};
}

// what: of a piece that has a name, "a weight of "
Error MemoryPool::exhausted(int64_t bytes, const char* what) const {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  const Use now = use();
  return Error(
      "ERR_OUT_OF_MEMORY",
      detail::join(kDeviceName, ": cannot allocate ", what, show_bytes(bytes), ": ", show_bytes(now.used),
                   " in use of a budget of ", show_bytes(now.budget), ", ",
                   show_bytes(static_cast<int64_t>(free)),
                   " free on the card; use a smaller picture, a quantised model, or the device cpu"));
}

}  // namespace kotoba::cuda
