// Segments of device memory, cut into blocks: a free block is split when less is asked for and joined with
// its free neighbours when it comes back, so that tensors of changing sizes share what one large one has
// left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace kotoba::cuda {

class Segments {
 public:
  static constexpr int64_t kStep = 512;  // bytes; every block is a multiple and starts at one

  // [data, data + bytes) may be handed out from now on; bytes: a multiple of kStep
  void add(std::byte* data, int64_t bytes);
  // The smallest free block that holds `bytes`, cut to size; null if there is none.
  std::byte* take(int64_t bytes);
  // False if `data` is no block of these segments.
  bool give(std::byte* data);
  // Takes the segments out in which nothing is in use: { start, bytes }.
  std::vector<std::pair<std::byte*, int64_t>> remove_free();

  int64_t free_bytes() const { return free_bytes_; }

 private:
  struct Block {
    int64_t bytes;
    bool in_use;
    bool starts_segment;
  };
  using Blocks = std::map<std::byte*, Block>;
  void set_free(Blocks::iterator block);
  void unset_free(Blocks::iterator block);
  void join_with_next(Blocks::iterator block);

  Blocks blocks_;                                  // all of them, by address
  std::set<std::pair<int64_t, std::byte*>> free_;  // by size
  int64_t free_bytes_ = 0;
};

}  // namespace kotoba::cuda
