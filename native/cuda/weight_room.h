// Who gets the memory that weights may have. A weight that fits stays ("resident"). One that does not passes
// through a slot of a small ring: the copies of the next ones run while ops read this one. Uses come in
// rounds (a network's layers, step after step), so what was used last is needed again last: it goes first.
// Every call is under the store's mutex.
#pragma once

#include <map>
#include <vector>

#include "weight.h"
#include "weight_forms.h"

namespace kotoba::cuda {

using Weights = std::map<std::byte*, std::shared_ptr<Weight>>;  // by name

class WeightRoom {
 public:
  WeightRoom(const Weights& weights, std::shared_ptr<MemoryPool> pool, WeightForms& forms, int64_t budget);

  // Memory of its own for `weight`, if there is room beside what tensors need and without forms. evicts: at
  // the cost of weights that belong to another network, too.
  bool settle(Weight& weight, bool evicts);
  // Whether settle() would find room for `weight`, which passes through a slot, at nobody's cost.
  bool may_settle(const Weight& weight) const;
  // A slot for `weight`; false if there is none. must: an op waits for it.
  bool give_slot(Weight& weight, bool must);
  // Takes the memory of `weight` away, which no op uses now.
  void leave(Weight& weight);
  // Takes memory back for tensors: forms, then weights, then slots, then small weights. False if there is
  // nothing to take.
  bool reclaim(int64_t bytes);

  void note_use(const Weight& weight) { last_used_ = &weight; }
  // `weight` exists no longer. A copy that runs keeps its memory until it is done.
  void forget(Weight& weight);
  // No weight is left.
  void close_slots();
  // Changes whenever memory that a graph may have read is given away.
  int64_t moves() const { return moves_; }

  bool is_small(int64_t bytes) const { return bytes <= small_bytes_; }

 private:
  static constexpr size_t kSlots = 3;  // one is read, one is filled, one is next

  enum class Victims { kUnused, kLarge, kAll };
  Weight* victim(Victims which) const;
  int64_t evict(Victims which);
  int64_t reclaim_one(int64_t bytes);
  Slot* free_slot(int64_t bytes, bool must);
  int64_t empty(Slot& slot);
  int64_t empty_one();
  bool resize(Slot& slot, int64_t bytes, bool must);
  void fill(Slot& slot, Weight& weight);

  const Weights& weights_;
  const std::shared_ptr<MemoryPool> pool_;
  WeightForms& forms_;
  const int64_t spare_;        // bytes of the budget that weights leave to tensors
  const int64_t small_bytes_;  // of the largest weight that is small
  std::vector<std::unique_ptr<Slot>> slots_;
  const Weight* last_used_ = nullptr;
  int64_t largest_ = 0;  // bytes of the largest weight that needed a slot
  int64_t moves_ = 0;
};

}  // namespace kotoba::cuda
