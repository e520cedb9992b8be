// The pool as it works on a GPU, where it caches: the simulated device itself runs without.
#include "../../memory_pool.h"

#include "testing.h"

namespace kotoba::sim {
namespace {

using cuda::MemoryPool;
using cuda::Segments;
using testing::expect;

constexpr int64_t kMiB = int64_t{1} << 20;

bool overlap(const std::byte* a, int64_t a_bytes, const std::byte* b, int64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

// A fixed sequence of pseudo-random numbers.
struct Numbers {
  uint64_t state = 1;
  int64_t below(int64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(n));
  }
};

SIM_TEST(segments_split_and_join) {
  Segments segments;
  auto* const memory = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);
  segments.add(memory, 4096);
  std::byte* const a = segments.take(1000);
  std::byte* const b = segments.take(1);
  std::byte* const c = segments.take(2048);
  expect(a == memory && b == memory + 1024 && c == memory + 1536, "blocks side by side, in steps of 512");
  expect(segments.free_bytes() == 512 && !segments.take(513), "what is left, and no more");
  expect(segments.give(b) && !segments.give(b) && !segments.give(memory + 1), "blocks to come back once");
  expect(segments.take(512) == b, "the smallest block that fits");
  segments.give(a);
  segments.give(c);
  expect(segments.remove_free().empty(), "a segment in use to stay");
  segments.give(b);
  expect(segments.take(4096) == memory, "free neighbours to be one block");
}

SIM_TEST(segments_that_touch_stay_apart) {
  Segments segments;
  auto* const memory = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);
  segments.add(memory + 1024, 1024);
  segments.add(memory, 1024);
  expect(!segments.take(1025), "no block over two segments");
  std::byte* const a = segments.take(1024);
  const auto removed = segments.remove_free();
  expect(removed.size() == 1 && removed[0].second == 1024 && removed[0].first != a, "the free one to go");
  segments.give(a);
  expect(segments.remove_free().size() == 1 && segments.free_bytes() == 0, "and then the other");
}

SIM_TEST(a_pool_never_hands_out_memory_twice) {
  MemoryPool pool(0, 400 * kMiB, true);
  struct Piece {
    std::byte* data;
    int64_t bytes;
  };
  std::vector<Piece> pieces;
  Numbers numbers;
  for (int i = 0; i < 3000; ++i) {
    if (pieces.size() < 12 && numbers.below(2) == 0) {
      const int64_t bytes = 1 + (numbers.below(2) ? numbers.below(3000) : numbers.below(12 * kMiB));
      const Piece piece{pool.allocate(bytes), bytes};
      for (const Piece& other : pieces)
        expect(!overlap(piece.data, piece.bytes, other.data, other.bytes), "pieces apart");
      pieces.push_back(piece);
    } else if (!pieces.empty()) {
      const auto at = pieces.begin() + numbers.below(static_cast<int64_t>(pieces.size()));
      pool.release(at->data);
      pieces.erase(at);
    }
  }
  for (const Piece& piece : pieces) pool.release(piece.data);
  expect(pool.use().used == 0, "everything to come back");
  expect(pool.use().peak > 0 && pool.use().peak <= 400 * kMiB, "a peak within the budget");
}

// What one large tensor leaves serves many smaller ones, of any size.
SIM_TEST(tensors_of_changing_sizes_share_memory) {
  MemoryPool pool(0, 100 * kMiB, true);
  pool.release(pool.allocate(90 * kMiB));
  std::vector<std::byte*> pieces;
  for (int i = 0; i < 9; ++i) pieces.push_back(pool.allocate(9 * kMiB + i * 1000));
  expect(pool.use().used < 82 * kMiB, "no more than was asked for");
  for (std::byte* data : pieces) pool.release(data);
  pool.release(pool.allocate(95 * kMiB));  // the segment of before goes back to the driver
}

SIM_TEST(taken_memory_pushes_cached_memory_out_and_respects_the_reserve) {
  MemoryPool pool(0, 100 * kMiB, true);
  pool.release(pool.allocate(60 * kMiB));
  expect(!pool.take(80 * kMiB, 30 * kMiB), "the reserve to be kept");
  std::byte* const data = pool.take(80 * kMiB, 10 * kMiB);
  expect(data != nullptr, "the cache to make room");
  bool failed = false;
  try {
    pool.allocate(30 * kMiB);
  } catch (const Error& error) {
    failed = std::string(error.code()) == "ERR_OUT_OF_MEMORY";
  }
  expect(failed, "ERR_OUT_OF_MEMORY");
  int asked = 0;
  pool.on_shortage([&](int64_t) {
    if (asked++) return false;
    pool.give(data, 80 * kMiB);
    return true;
  });
  pool.release(pool.allocate(30 * kMiB));
  expect(asked == 1, "whoever holds taken memory to be asked");
}

SIM_TEST(what_a_capture_allocates_is_not_handed_out_again) {
  for (const bool caches : {true, false}) {
    MemoryPool pool(0, 100 * kMiB, caches);
    std::byte* const before = pool.allocate(1000);
    pool.begin_capture();
    std::byte* const first = pool.allocate(5000);
    pool.release(first);
    expect(pool.allocate(4000) == first, "a capture to use its own memory again");
    std::byte* const second = pool.allocate(5000);
    expect(second != first, "but not twice at once");
    pool.release(first);
    pool.release(second);
    pool.release(before);
    const std::vector<std::byte*> kept = pool.end_capture();
    expect(kept.size() == 2, "two blocks");
    for (int i = 0; i < 3; ++i) {
      std::byte* const later = pool.allocate(4000);
      expect(!overlap(later, 4000, first, 5000) && !overlap(later, 4000, second, 5000), "other memory");
    }
    for (std::byte* data : kept) pool.release(data);
  }
}

}  // namespace
}  // namespace kotoba::sim
