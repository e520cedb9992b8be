#include "weight_forms.h"

namespace kotoba::cuda {

WeightForms::WeightForms(std::shared_ptr<MemoryPool> pool)
    : pool_(std::move(pool)), spare_(pool_->use().budget / 16) {}

void WeightForms::add(const std::byte* data, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  weights_[data] = bytes;
}

void WeightForms::forget(const std::byte* data) {
  const std::lock_guard lock(mutex_);
  const auto weight = weights_.find(data);
  if (weight == weights_.end()) return;
  dropped_ += static_cast<int64_t>(std::erase_if(forms_, [&](const auto& form) {
    const std::byte* at = std::get<0>(form.first);
    return at >= data && at < data + weight->second;
  }));
  weights_.erase(weight);
}

bool WeightForms::is_weight(const std::byte* data) const {
  const auto next = weights_.upper_bound(data);
  if (next == weights_.begin()) return false;
  const auto& [first, bytes] = *std::prev(next);
  return data < first + bytes;
}

bool WeightForms::has_room(int64_t bytes) const {
  const MemoryPool::Use use = pool_->use();
  return bytes <= use.budget - use.used - spare_;
}

const std::byte* WeightForms::get(const TensorView& w, WeightForm form, int64_t bytes,
                                  const std::function<void(std::byte*)>& make) {
  const Key key = {w.data, w.rows(), w.cols(), w.row_stride, w.dtype, form};
  std::byte* data = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto known = forms_.find(key);
    if (known != forms_.end()) {
      known->second.last_op = op_;
      return known->second.memory.data();
    }
    if (!is_weight(w.data)) return nullptr;
    if (capturing_ && has_room(bytes)) throw NotCapturableYet("another form of a weight is made first");
    if (capturing_) return nullptr;
    LongMemory memory(pool_, bytes, spare_);
    if (!memory) return nullptr;
    data = memory.data();
    forms_.emplace(key, Form{std::move(memory), ++made_, op_});
  }
  try {
    make(data);  // without the lock: its scratch memory may have to come from other forms
  } catch (...) {
    const std::lock_guard lock(mutex_);
    forms_.erase(key);
    throw;
  }
  return data;
}

int64_t WeightForms::reclaim(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  int64_t freed = 0;
  while (freed < bytes) {
    auto last = forms_.end();
    for (auto form = forms_.begin(); form != forms_.end(); ++form)
      if (form->second.last_op != op_ && (last == forms_.end() || form->second.number > last->second.number))
        last = form;
    if (last == forms_.end()) break;
    freed += last->second.memory.bytes();
    forms_.erase(last);
    ++dropped_;
  }
  return freed;
}

int64_t WeightForms::bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t sum = 0;
  for (const auto& [_, form] : forms_) sum += form.memory.bytes();
  return sum;
}

}  // namespace kotoba::cuda
