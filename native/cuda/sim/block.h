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
#include <vector>

#include "fiber.h"
#include "vector_types.h"

namespace kotoba::sim {

// What a kernel did wrong. Thrown inside of a kernel, it ends the launch.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct LaunchShape {
  const char* kernel;
  dim3 grid, block;
  size_t dynamic_shared;  // bytes
};

using Copy = std::function<void()>;

// Asynchronous copies of one thread (cp.async): they happen when it waits for their group, not before.
struct CopyGroups {
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> committed;  // oldest first
};

struct Thread {
  Fiber fiber;
  dim3 index;
  unsigned rank = 0;
  bool done = false;
  const char* waits_in = nullptr;   // for messages
  std::function<bool()> may_go_on;  // empty: always
  CopyGroups copies;

  unsigned lane() const { return rank % 32; }
};

// Threads that meet: the last to arrive does the work for all of them.
struct Meeting {
  unsigned arrived = 0;
  uint64_t generation = 0;
  std::source_location place;
  void* parts[128] = {};  // what each participant brought, by its place
};

class Block {
 public:
  static constexpr size_t kStaticShared = size_t{48} << 10;  // bytes; more needs dynamic shared memory
  static constexpr size_t kAllShared = size_t{227} << 10;    // of sm_90

  Block();
  void run(const LaunchShape& shape, dim3 index, const std::function<void()>& kernel);

  const LaunchShape& shape() const { return *shape_; }
  dim3 index() const { return index_; }
  unsigned threads() const { return thread_count_; }
  Thread& thread(unsigned rank) { return *threads_[rank]; }

  // The variable declared at `site`, the same for all threads of a block.
  void* static_shared(const void* site, size_t bytes, size_t alignment);
  std::byte* dynamic_shared() const { return dynamic_; }
  bool in_shared(const void* address) const;

  // Puts the running thread aside until may_go_on().
  void wait(const char* what, std::function<bool()> may_go_on);
  // Work that hardware units do on their own (TMA): it completes when nobody can go on without it.
  void later(Copy work) { background_.push_back(std::move(work)); }

  Meeting& barrier() { return barrier_; }
  Meeting& warp_meeting(unsigned warp, unsigned mask);
  Meeting& warpgroup_meeting(unsigned group) { return warpgroups_[group]; }

  // Ends the launch from a signal handler's continuation, where nothing may be thrown.
  [[noreturn]] void end_thread_with(std::string fault);

 private:
  struct SharedVariable {
    const void* site;
    std::byte* data;
    size_t bytes;
  };
  struct WarpMeeting {
    unsigned warp, mask;
    std::unique_ptr<Meeting> meeting;
  };

  void start(dim3 index);
  void run_until_done();
  struct Order;
  bool take_turns();
  bool run_warp(unsigned warp);
  void throw_fault() const;
  [[noreturn]] void deadlock() const;
  void check_shared() const;
  static void thread_body(void* thread);

  const LaunchShape* shape_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
  dim3 index_;
  unsigned thread_count_ = 0, live_ = 0;
  uint64_t turn_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::byte *shared_, *dynamic_ = nullptr;
  size_t shared_used_ = 0;
  std::vector<SharedVariable> variables_;
  std::vector<Copy> background_;
  Meeting barrier_;
  std::vector<WarpMeeting> warps_;
  std::vector<Meeting> warpgroups_;
  std::string fault_;
};

// What runs now; null outside of kernels. Kernels run one at a time, whichever host thread runs them.
inline Block* current_block = nullptr;
inline Thread* current_thread = nullptr;

void run_grid(const LaunchShape& shape, const std::function<void()>& kernel);

// "kernel linear_simt, block (0, 0, 0), thread (5, 0, 0)"
std::string where();
[[noreturn]] void fault(const std::string& what);

// `expected` threads bring their part to `place`; the last one runs work(parts). All go on after it.
template <typename Work>
void meet(Meeting& meeting, unsigned expected, unsigned place, void* part, const char* what,
          const std::source_location& at, Work work) {
  if (meeting.arrived == 0) meeting.place = at;
  if (meeting.place.line() != at.line())
    fault(std::string(what) + ": threads of one group wait in lines " + std::to_string(meeting.place.line()) +
          " and " + std::to_string(at.line()) + " of " + at.file_name());
  meeting.parts[place] = part;
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.generation;
    work(meeting.parts);
    return;
  }
  current_block->wait(
      what, [&meeting, generation = meeting.generation] { return meeting.generation != generation; });
}

}  // namespace kotoba::sim
