// Adopted weights: tensors hold their names, and every op asks where they are now (weight_room.h says who may
// stay). Copies from the files run on the uploader's thread and stream, ordered against the ops with events;
// what comes next is what came next the last time.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "../backend.h"
#include "uploader.h"
#include "weight_room.h"

namespace kotoba::cuda {

class WeightStore : public std::enable_shared_from_this<WeightStore> {
 public:
  // `ops`: the stream that reads the weights.
  WeightStore(int device, std::shared_ptr<MemoryPool> pool, WeightForms& forms, const Stream& ops);
  ~WeightStore();

  // From any thread; returns at once, and the copy begins if there is room.
  BlockPtr adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes);

  // ---- for the ops, on the queue's thread
  // If `view` is of a weight, puts it where the device can read it and points it there: the op that is
  // launched next may read it. ERR_OUT_OF_MEMORY
  void locate(TensorView& view);
  // The bytes of `view` in its file, if it is of a weight that would have to be copied first; else null. For
  // ops that read little of it.
  const std::byte* in_file(const TensorView& view);
  // `view` is read by an op that makes a copy of it: it will not be needed again soon.
  void read_once(const TensorView& view);
  // The op has been given to the stream: what it read may go.
  void let_go();

  // ---- for graphs
  // A capture takes only what stays and has arrived: locate() throws NotCapturableYet for the rest.
  void while_capturing(bool on) { capturing_ = on; }
  // Runs launch() unless memory that a graph may read was given away since moves() was `moves`.
  bool launch_unmoved(int64_t moves, const std::function<void()>& launch);
  int64_t moves();
  // Weights that were not there when an op needed them, so far.
  int64_t misses() const { return misses_; }

  // Whoever is short of memory asks here; from any thread. False if there is nothing to give.
  bool reclaim(int64_t bytes);
  struct Use {
    int64_t resident, fetched;  // bytes that stay now; bytes that were copied because an op needed them
  };
  Use use();

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Target {
    std::byte* memory;
    Slot* slot;
  };
  struct Held {
    std::shared_ptr<Weight> weight;
    Slot* slot;
  };
  std::shared_ptr<Weight> find(const std::byte* address) const;
  void forget(std::byte* name);
  void note_use(Weight& weight);
  void hold(const std::shared_ptr<Weight>& weight);
  void fetch(Lock& lock, const std::shared_ptr<Weight>& weight);
  void fetch_next(const Weight& weight);
  bool is_copying() const;
  void start_copy(std::shared_ptr<Weight> weight, Uploader::When when);
  std::optional<Target> begin_copy(Weight& weight);
  void copy(Weight& weight, Uploader& uploader);
  void await_copy(Lock& lock, Weight& weight);

  const int device_;
  const Stream& ops_;
  const std::shared_ptr<MemoryPool> pool_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Weights weights_;
  WeightForms& forms_;
  WeightRoom room_;
  std::byte* next_name_;
  Weight *last_adopted_ = nullptr, *last_used_ = nullptr;  // large ones
  int64_t uses_ = 0, fetched_ = 0;
  std::atomic<int64_t> misses_{0};
  // The queue thread's
  std::vector<Held> held_;  // by the op that runs now
  bool capturing_ = false;
  Uploader uploader_;  // last: its thread uses the rest
};

}  // namespace kotoba::cuda
