// Adopted weights in other forms (expanded to 16 bits, split, repacked), made once and kept while there is
// room: whoever else needs memory takes theirs first.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "../tensor_view.h"
#include "memory_pool.h"

namespace kotoba::cuda {

// A graph cannot hold a command yet: what it reads has to be made or copied first.
struct NotCapturableYet : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class WeightForm : uint8_t { kF16, kBf16, kSplit };

class WeightForms {
 public:
  // A sixteenth of the budget is left to tensors.
  explicit WeightForms(std::shared_ptr<MemoryPool> pool);

  // Weights in device memory [data, data + bytes) exist from now on; and no longer.
  void add(const std::byte* data, int64_t bytes);
  void forget(const std::byte* data);

  // `bytes` of memory with `w` in another form, written by make() when it is first asked for; null if `w` is
  // no weight that stays, or there is no room: then it has to be made for one use. On the queue's thread.
  const std::byte* get(const TensorView& w, WeightForm form, int64_t bytes,
                       const std::function<void(std::byte*)>& make);

  // The op that asked has been given to the stream: what it got may go.
  void let_go() { ++op_; }
  // Gives forms back until they make `bytes`, the last ones first: the first are used again soonest. Returns
  // what that made.
  int64_t reclaim(int64_t bytes);
  // A capture makes none, for a graph would make them again at every launch: get() throws NotCapturableYet
  // where it could make one.
  void while_capturing(bool on) { capturing_ = on; }
  // Changes with every form that goes: a graph may hold its address.
  int64_t dropped() const { return dropped_; }
  int64_t bytes() const;

 private:
  using Key = std::tuple<const std::byte*, int64_t, int64_t, int64_t, DType, WeightForm>;
  struct Form {
    LongMemory memory;
    int64_t number;   // in the order they were made
    int64_t last_op;  // that used it
  };
  bool is_weight(const std::byte* data) const;
  bool has_room(int64_t bytes) const;

  const std::shared_ptr<MemoryPool> pool_;
  const int64_t spare_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, int64_t> weights_;  // bytes by address
  std::map<Key, Form> forms_;
  int64_t made_ = 0;
  std::atomic<int64_t> op_{0};
  std::atomic<int64_t> dropped_{0};
  bool capturing_ = false;  // the queue's thread only
};

}  // namespace kotoba::cuda
