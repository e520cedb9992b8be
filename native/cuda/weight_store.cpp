#include "weight_store.h"

namespace kotoba::cuda {
namespace {

// Names lie where no memory of the host or the device can be.
std::byte* const kFirstName = reinterpret_cast<std::byte*>(uintptr_t{1} << 60);
constexpr int64_t kNameStep = 256;
constexpr int kLookAhead = 16;  // weights; streamed ones among them are fetched

}  // namespace

WeightStore::WeightStore(int device, std::shared_ptr<MemoryPool> pool, WeightForms& forms, const Stream& ops)
    : device_(device),
      ops_(ops),
      pool_(pool),
      forms_(forms),
      room_(weights_, pool, forms, pool->use().budget),
      next_name_(kFirstName),
      uploader_(device) {
  pool_->on_shortage([this](int64_t bytes) { return reclaim(bytes); });
}

WeightStore::~WeightStore() { pool_->on_shortage(nullptr); }

// ---- adopting

BlockPtr WeightStore::adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) {
  check(cudaSetDevice(device_), "choosing the device");
  const Lock lock(mutex_);
  std::byte* name = next_name_;
  next_name_ += (bytes / kNameStep + 1) * kNameStep;
  auto weight = std::make_shared<Weight>(name, bytes, std::move(file), offset, room_.is_small(bytes));
  weights_[name] = weight;
  if (!weight->is_small) {
    if (last_adopted_) last_adopted_->next = name;
    last_adopted_ = weight.get();
  }
  start_copy(std::move(weight), Uploader::When::kLater);
  return std::make_shared<Block>(name, bytes, [store = weak_from_this(), name] {
    if (const auto alive = store.lock()) alive->forget(name);
  });
}

void WeightStore::forget(std::byte* name) {
  const Lock lock(mutex_);
  const auto found = weights_.find(name);
  if (found == weights_.end()) return;
  Weight& weight = *found->second;
  room_.forget(weight);
  if (last_adopted_ == &weight) last_adopted_ = nullptr;
  if (last_used_ == &weight) last_used_ = nullptr;
  weights_.erase(found);
  if (weights_.empty()) room_.close_slots();
}

std::shared_ptr<Weight> WeightStore::find(const std::byte* address) const {
  if (address < kFirstName) return nullptr;
  const auto next = weights_.upper_bound(const_cast<std::byte*>(address));
  return next == weights_.begin() ? nullptr : std::prev(next)->second;
}

// ---- using

void WeightStore::locate(TensorView& view) {
  if (view.data < kFirstName) return;
  Lock lock(mutex_);
  const std::shared_ptr<Weight> weight = find(view.data);
  note_use(*weight);
  const bool is_passing = weight->slot && !weight->in_use && weight->copy == Weight::Copy::kArrived;
  if (is_passing && room_.may_settle(*weight)) room_.leave(*weight);  // copied once more, to stay
  if (!weight->memory()) {
    ++misses_;
    if (!capturing_) fetch(lock, weight);
  } else if (weight->slot) {
    ++misses_;
  }
  if (capturing_ && (!weight->own || weight->copy != Weight::Copy::kArrived))
    throw NotCapturableYet("its weights do not all stay in the GPU's memory");
  hold(weight);
  fetch_next(*weight);
  await_copy(lock, *weight);
  view.data = weight->memory() + (view.data - weight->name);
}

void WeightStore::note_use(Weight& weight) {
  if (weight.is_small || last_used_ == &weight) return;
  if (last_used_) last_used_->next = weight.name;
  last_used_ = &weight;
  weight.use_before = weight.last_use;
  weight.last_use = ++uses_;
  room_.note_use(weight);
}

void WeightStore::hold(const std::shared_ptr<Weight>& weight) {
  weight->in_use = true;
  if (weight->slot) weight->slot->in_use = true;
  held_.push_back({weight, weight->slot});
}

void WeightStore::let_go() {
  if (held_.empty()) return;
  const Lock lock(mutex_);
  for (const Held& held : held_) {
    held.weight->in_use = false;
    if (!held.slot) continue;
    held.slot->in_use = false;
    ops_.record(held.slot->used);
  }
  held_.clear();
}

// Room for a weight that an op waits for, and the order to copy it there.
void WeightStore::fetch(Lock& lock, const std::shared_ptr<Weight>& weight) {
  while (!weight->memory()) {
    if (room_.settle(*weight, true) || room_.give_slot(*weight, true)) {
      fetched_ += weight->bytes;
      start_copy(weight, Uploader::When::kNow);
    } else if (is_copying()) {
      changed_.wait(lock);  // then a slot is free
    } else {
      throw pool_->exhausted(weight->bytes, "a weight of ");
    }
  }
}

// The weights that are likely to be used next, as far as there are slots for them.
void WeightStore::fetch_next(const Weight& weight) {
  if (capturing_) return;
  std::byte* name = weight.next;
  for (int i = 0; i < kLookAhead && name && name != weight.name; ++i) {
    const auto found = weights_.find(name);
    if (found == weights_.end()) return;
    const std::shared_ptr<Weight>& next = found->second;
    name = next->next;
    if (next->memory() || next->read_once) continue;
    if (!room_.settle(*next, true) && !room_.give_slot(*next, false)) return;
    fetched_ += next->bytes;
    start_copy(next, Uploader::When::kSoon);
  }
}

const std::byte* WeightStore::in_file(const TensorView& view) {
  if (view.data < kFirstName) return nullptr;
  const Lock lock(mutex_);
  const std::shared_ptr<Weight> weight = find(view.data);
  weight->read_once = true;
  if (weight->is_small || weight->own) return nullptr;
  ++misses_;
  return weight->file->data() + weight->offset + (view.data - weight->name);
}

void WeightStore::read_once(const TensorView& view) {
  if (view.data < kFirstName) return;
  const Lock lock(mutex_);
  find(view.data)->read_once = true;
}

// ---- copying

bool WeightStore::is_copying() const {
  for (const auto& [_, weight] : weights_)
    if (weight->copy == Weight::Copy::kRunning) return true;
  return false;
}

void WeightStore::start_copy(std::shared_ptr<Weight> weight, Uploader::When when) {
  weight->copy = Weight::Copy::kWaiting;
  uploader_.add(when, [this, weight = std::move(weight)](Uploader& uploader) { copy(*weight, uploader); });
}

// Where to; nothing if there is nothing to copy: an order after this one was faster, the weight was given up,
// or nobody waits for it and it finds no room, so that it stays in its file.
std::optional<WeightStore::Target> WeightStore::begin_copy(Weight& weight) {
  const Lock lock(mutex_);
  if (weight.copy != Weight::Copy::kWaiting) return {};
  weight.copy = Weight::Copy::kNone;
  try {
    if (!weight.memory() && !room_.settle(weight, false)) return {};
  } catch (const Error&) {
    return {};  // the GPU is lost: the op that needs the weight will say so
  }
  weight.copy = Weight::Copy::kRunning;
  if (weight.slot) weight.slot->filling = true;
  return Target{weight.memory(), weight.slot};
}

// On the uploader's thread.
void WeightStore::copy(Weight& weight, Uploader& uploader) {
  const std::optional<Target> target = begin_copy(weight);
  if (!target) return;
  TensorView to;
  to.data = target->memory;
  to.dtype = DType::U8;
  to.rank = 1;
  to.shape[0] = to.row_stride = weight.bytes;
  std::exception_ptr failure;
  try {
    Uploader::Engine& engine = uploader.engine();
    if (target->slot) engine.stream.wait_for(target->slot->used);
    engine.staging.upload(engine.stream, to, weight.file->data() + weight.offset);
    engine.stream.record(weight.arrived);
  } catch (...) {
    failure = std::current_exception();
  }
  const Lock lock(mutex_);
  weight.copy = Weight::Copy::kIssued;
  weight.failure = failure;
  if (target->slot) target->slot->filling = false;
  changed_.notify_all();
}

void WeightStore::await_copy(Lock& lock, Weight& weight) {
  changed_.wait(lock, [&] { return weight.copy > Weight::Copy::kRunning; });
  if (weight.failure) {
    const std::exception_ptr failure = std::exchange(weight.failure, nullptr);
    room_.leave(weight);
    std::rethrow_exception(failure);
  }
  if (weight.copy == Weight::Copy::kArrived) return;
  ops_.wait_for(weight.arrived);
  weight.copy = Weight::Copy::kArrived;
}

// ---- graphs and memory

int64_t WeightStore::moves() {
  const Lock lock(mutex_);
  return room_.moves() + forms_.dropped();
}

bool WeightStore::launch_unmoved(int64_t moves, const std::function<void()>& launch) {
  const Lock lock(mutex_);
  if (room_.moves() + forms_.dropped() != moves) return false;
  launch();
  return true;
}

bool WeightStore::reclaim(int64_t bytes) {
  Lock lock(mutex_);
  while (!room_.reclaim(bytes)) {
    if (!is_copying()) return false;
    changed_.wait(lock);  // then what was being filled can be given back
  }
  return true;
}

WeightStore::Use WeightStore::use() {
  const Lock lock(mutex_);
  Use use{0, fetched_};
  for (const auto& [_, weight] : weights_) use.resident += weight->own.bytes();
  return use;
}

}  // namespace kotoba::cuda
