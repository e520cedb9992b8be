// One block of a kernel at a time: its threads are fibers that a scheduler runs in turn, in an order that
// changes from turn to turn (the same in every run), so that results which depend on it do not last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

namespace kotoba::sim {

// What a kernel did wrong, which has ended its launch.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct LaunchShape {
  const char* kernel;
  unsigned blocks, threads;
  size_t dynamic_shared;  // bytes
};

using Work = std::function<void()>;

// Asynchronous work that is waited for group by group (cp.async, wgmma). It is done then, not before.
class WorkGroups {
 public:
  void add(Work work) { open_.push_back(std::move(work)); }
  void commit() { committed_.push_back(std::exchange(open_, {})); }
  size_t pending() const { return committed_.size(); }
  // Does the oldest groups until so many are left.
  void finish_all_but(size_t kept) {
    while (committed_.size() > kept) {
      for (const Work& work : committed_.front()) work();
      committed_.erase(committed_.begin());
    }
  }

 private:
  std::vector<Work> open_;
  std::vector<std::vector<Work>> committed_;  // oldest first
};

struct Thread {
  explicit Thread(void (*body)()) : fiber(body) {}

  Fiber fiber;
  unsigned rank = 0;
  bool done = false;
  const char* waits_in = nullptr;   // for messages
  std::function<bool()> may_go_on;  // empty: always
  void* part = nullptr;             // what it brought to a meeting
  WorkGroups copies;
};

// Where a group of threads meets: a warp, a warpgroup or the whole block.
struct Meeting {
  unsigned first, size;  // its threads, by rank
  unsigned arrived = 0;
  uint64_t generation = 0;
  std::source_location place = {};
  WorkGroups products = {};  // of a warpgroup
};

// What runs now. Kernels run one at a time, whichever host thread runs them. Outside of kernels there is no
// thread, but the last block stays, for the next launch to use its stacks.
class Block;
inline Block* current_block = nullptr;
inline Thread* current_thread = nullptr;

class Block {
 public:
  static constexpr size_t kStaticShared = size_t{48} << 10;  // bytes; more needs dynamic shared memory
  static constexpr size_t kAllShared = size_t{227} << 10;    // of sm_90

  Block();
  void run(const LaunchShape& shape, unsigned index, const Work& kernel);

  const LaunchShape& shape() const { return *shape_; }
  unsigned index() const { return index_; }
  Thread& thread(unsigned rank) { return *threads_[rank]; }

  // The variable declared at `site`, the same for all threads of a block.
  void* static_shared(const void* site, size_t bytes);
  std::byte* dynamic_shared() const { return dynamic_; }
  bool in_shared(const void* address) const;

  // Those of the running thread.
  Meeting& everybody() { return everybody_; }
  Meeting& warp() { return warps_[current_thread->rank / 32]; }
  Meeting& warpgroup() { return warpgroups_[current_thread->rank / 128]; }
  // Every thread of the group brings its part. True for the last to come, which does the work for all of
  // them; the others go on after it.
  bool meet(Meeting& group, void* part, const char* what, std::source_location at);

  // Puts the running thread aside until may_go_on().
  void wait(const char* what, std::function<bool()> may_go_on);
  // Work that hardware units do on their own (TMA): it completes when nobody can go on without it.
  void later(Work work) { background_.push_back(std::move(work)); }
  // Ends the running thread, and the launch with this fault.
  [[noreturn]] void end_with(std::string fault);

 private:
  struct SharedVariable {
    const void* site;
    std::byte* data;
    size_t bytes, room;  // room: up to the next variable
  };

  void start(unsigned index);
  void run_until_done();
  bool take_turns();
  bool run_warp(unsigned warp);
  [[noreturn]] void deadlock() const;
  void check_shared() const;
  static void run_thread();

  const LaunchShape* shape_ = nullptr;
  const Work* kernel_ = nullptr;
  unsigned index_ = 0, live_ = 0;
  uint64_t turn_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::shared_ptr<std::byte> shared_;
  std::byte* dynamic_ = nullptr;
  size_t shared_used_ = 0;
  std::vector<SharedVariable> variables_;
  std::vector<Work> background_;
  Meeting everybody_;
  std::vector<Meeting> warps_, warpgroups_;
  std::string fault_;
};

void run_grid(const LaunchShape& shape, const Work& kernel);

// "kernel linear_simt, block 0, thread 5"
std::string where();
// Ends the launch. Nothing is thrown from inside of a kernel, so that signal handlers may call this too: the
// threads of the block are left where they are.
[[noreturn]] void fault(const std::string& what);

// What each thread of a group brought to a meeting, by its place in the group.
template <typename Part>
struct Parts {
  unsigned first;
  Part& operator[](unsigned i) const { return *static_cast<Part*>(current_block->thread(first + i).part); }
};

}  // namespace kotoba::sim
