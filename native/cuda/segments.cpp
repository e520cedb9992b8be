#include "segments.h"

#include <algorithm>

namespace kotoba::cuda {

void Segments::set_free(Blocks::iterator block) {
  block->second.in_use = false;
  free_.emplace(block->second.bytes, block->first);
  free_bytes_ += block->second.bytes;
}

void Segments::unset_free(Blocks::iterator block) {
  free_.erase({block->second.bytes, block->first});
  free_bytes_ -= block->second.bytes;
}

void Segments::add(std::byte* data, int64_t bytes) {
  set_free(blocks_.emplace(data, Block{bytes, false, true}).first);
}

std::byte* Segments::take(int64_t bytes) {
  bytes = (std::max<int64_t>(bytes, 1) + kStep - 1) / kStep * kStep;
  const auto found = free_.lower_bound({bytes, nullptr});
  if (found == free_.end()) return nullptr;
  const auto block = blocks_.find(found->second);
  unset_free(block);
  block->second.in_use = true;
  if (const int64_t rest = block->second.bytes - bytes; rest > 0) {
    block->second.bytes = bytes;
    set_free(blocks_.emplace(block->first + bytes, Block{rest, false, false}).first);
  }
  return block->first;
}

// Both are free, and so is the result.
void Segments::join_with_next(Blocks::iterator block) {
  const auto next = std::next(block);
  unset_free(block);
  unset_free(next);
  block->second.bytes += next->second.bytes;
  blocks_.erase(next);
  set_free(block);
}

bool Segments::give(std::byte* data) {
  const auto block = blocks_.find(data);
  if (block == blocks_.end() || !block->second.in_use) return false;
  set_free(block);
  const auto may_join = [&](Blocks::iterator next) {
    return next != blocks_.end() && !next->second.in_use && !next->second.starts_segment;
  };
  if (may_join(std::next(block))) join_with_next(block);
  if (may_join(block) && block != blocks_.begin() && !std::prev(block)->second.in_use)
    join_with_next(std::prev(block));
  return true;
}

std::vector<std::pair<std::byte*, int64_t>> Segments::remove_free() {
  std::vector<std::pair<std::byte*, int64_t>> removed;
  for (auto block = blocks_.begin(); block != blocks_.end();) {
    const auto next = std::next(block);
    const bool is_whole =
        block->second.starts_segment && (next == blocks_.end() || next->second.starts_segment);
    if (is_whole && !block->second.in_use) {
      unset_free(block);
      removed.emplace_back(block->first, block->second.bytes);
      blocks_.erase(block);
    }
    block = next;
  }
  return removed;
}

}  // namespace kotoba::cuda
