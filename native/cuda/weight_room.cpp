#include "weight_room.h"

#include <algorithm>
#include <tuple>

namespace kotoba::cuda {
namespace {

constexpr int64_t kSmall = int64_t{256} << 10;  // bytes; less of a tiny budget

// Whether its copy was ordered and it has not been used since.
bool is_awaited(const Weight& weight) {
  return weight.copy == Weight::Copy::kWaiting || weight.copy == Weight::Copy::kIssued;
}

}  // namespace

WeightRoom::WeightRoom(const Weights& weights, std::shared_ptr<MemoryPool> pool, WeightForms& forms,
                       int64_t budget)
    : weights_(weights),
      pool_(std::move(pool)),
      forms_(forms),
      spare_(budget / 16),
      small_bytes_(std::min(kSmall, budget / 1024)) {}

// ---- weights that stay

bool WeightRoom::settle(Weight& weight, bool evicts) {
  const int64_t spare = weight.is_small ? 0 : spare_;
  weight.own = LongMemory(pool_, weight.bytes, spare);
  while (!weight.own && (forms_.reclaim(weight.bytes) > 0 || (evicts && evict(Victims::kUnused) > 0)))
    weight.own = LongMemory(pool_, weight.bytes, spare);
  if (weight.own) forms_.add(weight.own.data(), weight.bytes);
  return static_cast<bool>(weight.own);
}

bool WeightRoom::may_settle(const Weight& weight) const {
  const MemoryPool::Use use = pool_->use();
  return weight.bytes <= use.budget - use.used - spare_;
}

void WeightRoom::leave(Weight& weight) {
  if (weight.slot) {
    weight.slot->holds = nullptr;
    weight.slot = nullptr;
  } else if (weight.own) {
    forms_.forget(weight.own.data());
    weight.own = {};
    ++moves_;
  }
  weight.copy = Weight::Copy::kNone;
}

void WeightRoom::forget(Weight& weight) {
  if (last_used_ == &weight) last_used_ = nullptr;
  if (weight.copy != Weight::Copy::kRunning) return leave(weight);
  if (weight.own) forms_.forget(weight.own.data());
  if (weight.slot) weight.slot->holds = nullptr;
}

// The resident weight that is needed last. kUnused: only one that is read once, or that was not used since
// the one that is used now was used before: it belongs to another network.
Weight* WeightRoom::victim(Victims which) const {
  const int64_t round_start = last_used_ ? last_used_->use_before : 0;
  const auto rank = [&](const Weight& weight) {
    const bool unused = weight.last_use < round_start;
    return std::tuple(weight.is_small, !weight.read_once, !unused,
                      unused ? weight.last_use : -weight.last_use);
  };
  Weight* best = nullptr;
  for (const auto& [_, weight] : weights_) {
    if (!weight->own || weight->in_use || weight->copy == Weight::Copy::kRunning) continue;
    if (which != Victims::kAll && weight->is_small) continue;
    if (which == Victims::kUnused && !weight->read_once && weight->last_use >= round_start) continue;
    if (!best || rank(*weight) < rank(*best)) best = weight.get();
  }
  return best;
}

// The bytes that it made; 0 if there is no victim.
int64_t WeightRoom::evict(Victims which) {
  Weight* weight = victim(which);
  if (!weight) return 0;
  leave(*weight);
  return weight->bytes;
}

// The bytes that the next victim makes, in the order of what is missed least; 0 if there is none.
int64_t WeightRoom::reclaim_one(int64_t bytes) {
  if (const int64_t made = forms_.reclaim(bytes)) return made;
  if (const int64_t made = evict(Victims::kLarge)) return made;
  if (const int64_t made = empty_one()) return made;
  return evict(Victims::kAll);
}

bool WeightRoom::reclaim(int64_t bytes) {
  int64_t freed = 0;
  for (int64_t more = 1; freed < bytes && more > 0; freed += more) more = reclaim_one(bytes - freed);
  return freed > 0;
}

// ---- weights that pass

// The bytes that it made; 0 if the slot is busy.
int64_t WeightRoom::empty(Slot& slot) {
  if (slot.in_use || slot.filling) return 0;
  if (slot.holds) leave(*slot.holds);
  const int64_t bytes = slot.memory.bytes();
  slot.memory = {};
  return bytes;
}

void WeightRoom::fill(Slot& slot, Weight& weight) {
  if (slot.holds) leave(*slot.holds);
  slot.holds = &weight;
  weight.slot = &slot;
}

void WeightRoom::close_slots() {
  largest_ = 0;
  for (const auto& slot : slots_) empty(*slot);
}

bool WeightRoom::give_slot(Weight& weight, bool must) {
  largest_ = std::max(largest_, weight.bytes);
  Slot* slot = free_slot(weight.bytes, must);
  if (!slot || (slot->memory.bytes() < weight.bytes && !resize(*slot, weight.bytes, must))) return false;
  fill(*slot, weight);
  return true;
}

// One that holds nothing, or what has been used; if that cannot be, any that is not being read.
Slot* WeightRoom::free_slot(int64_t bytes, bool must) {
  Slot *best = nullptr, *waiting = nullptr;
  const auto rank = [&](const Slot& slot) {
    return std::tuple(slot.memory.bytes() < bytes, slot.holds ? slot.holds->last_use : 0);
  };
  for (const auto& slot : slots_) {
    if (slot->in_use || slot->filling) continue;
    Slot*& candidate = slot->holds && is_awaited(*slot->holds) ? waiting : best;
    if (!candidate || rank(*slot) < rank(*candidate)) candidate = slot.get();
  }
  if (best && best->memory.bytes() >= bytes) return best;
  if (slots_.size() < kSlots || (must && !best && !waiting))
    return slots_.emplace_back(std::make_unique<Slot>()).get();
  return best || !must ? best : waiting;
}

// What any slot gives that nobody reads or fills now.
int64_t WeightRoom::empty_one() {
  for (const auto& slot : slots_)
    if (const int64_t bytes = empty(*slot)) return bytes;
  return 0;
}

// Memory for the largest weight so far, or for this one alone where there is not more.
bool WeightRoom::resize(Slot& slot, int64_t bytes, bool must) {
  empty(slot);
  for (const int64_t size : {largest_, bytes}) {
    do {
      slot.memory = LongMemory(pool_, size, 0);
      if (slot.memory) return true;
    } while (must && size == bytes && reclaim_one(bytes) > 0);
  }
  return false;
}

}  // namespace kotoba::cuda
