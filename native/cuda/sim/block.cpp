#include "block.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "memory.h"
#include "watch.h"

namespace kotoba::sim {
namespace {

constexpr size_t kArea = size_t{256} << 10;  // of each kind of shared memory
constexpr size_t kSharedAlignment = 128;
constexpr size_t kGap = 64;  // bytes at least between shared variables that nobody may write

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// (first + i * step) % count for i < count: all numbers below `count`, in an order that depends on `seed`.
struct Order {
  unsigned first, step, count;

  Order(uint64_t seed, unsigned n) : count(n) {
    const uint64_t mixed = (seed + 1) * 0x9e3779b97f4a7c15u;
    first = static_cast<unsigned>(mixed >> 40) % n;
    step = static_cast<unsigned>(mixed >> 20) % n | 1;
    while (std::gcd(step, n) != 1) ++step;
  }
  unsigned operator[](unsigned i) const {
    return static_cast<unsigned>((first + uint64_t{i} * step) % count);
  }
};

}  // namespace

// Static variables fill the first area from its start; dynamic memory ends where the second area does.
Block::Block() : shared_(guarded_pages(2 * kArea)), shared_used_(kArea) {}

bool Block::in_shared(const void* address) const {
  return address >= shared_.get() - kPage && address < shared_.get() + 2 * kArea + kPage;
}

void Block::start(unsigned index) {
  index_ = index;
  live_ = shape_->threads;
  while (threads_.size() < live_) threads_.push_back(std::make_unique<Thread>(&Block::run_thread));
  everybody_ = {0, live_};
  warps_.clear();
  warpgroups_.clear();
  for (unsigned rank = 0; rank < live_; ++rank) {
    Thread& thread = *threads_[rank];
    thread.rank = rank;
    thread.done = false;
    thread.copies = {};
    if (rank % 32 == 0) warps_.push_back({rank, 32});
    if (rank % 128 == 0) warpgroups_.push_back({rank, 128});
  }
  std::memset(shared_.get(), kPoison, shared_used_);
  shared_used_ = 0;
  variables_.clear();
  const size_t dynamic = round_up(shape_->dynamic_shared, 1024);
  dynamic_ = shared_.get() + 2 * kArea - dynamic;
  std::memset(dynamic_, kPoison, dynamic);
}

void Block::run(const LaunchShape& shape, unsigned index, const Work& kernel) {
  shape_ = &shape;
  kernel_ = &kernel;
  start(index);
  run_until_done();
  check_shared();
}

// A fiber's body: the same thread of one block after the other.
void Block::run_thread() {
  while (true) {
    (*current_block->kernel_)();
    current_thread->done = true;
    current_thread->fiber.suspend();
  }
}

void Block::end_with(std::string fault) {
  fault_ = std::move(fault);
  current_thread->fiber.suspend();
  __builtin_unreachable();  // nobody resumes it
}

// One warp after the other goes as far as it can without them, so that what they share has to be guarded.
// False if none could go on.
bool Block::take_turns() {
  const Order order(turn_++ + uint64_t{index_} * 31, static_cast<unsigned>(warps_.size()));
  bool progress = false;
  for (unsigned i = 0; i < order.count; ++i)
    while (run_warp(order[i])) progress = true;
  return progress;
}

// Every thread of the warp that can go on does, once.
bool Block::run_warp(unsigned warp) {
  const unsigned first = warp * 32;
  const Order lanes(turn_++ + index_, std::min(32u, shape_->threads - first));
  bool progress = false;
  for (unsigned i = 0; i < lanes.count; ++i) {
    Thread& thread = *threads_[first + lanes[i]];
    if (thread.done || (thread.may_go_on && !thread.may_go_on())) continue;
    thread.may_go_on = nullptr;
    current_thread = &thread;
    thread.fiber.resume();
    current_thread = nullptr;
    progress = true;
    if (!fault_.empty()) throw Fault(fault_);
    live_ -= thread.done;
  }
  return progress;
}

void Block::run_until_done() {
  turn_ = 0;
  while (live_ > 0) {
    if (take_turns()) continue;
    if (background_.empty()) deadlock();
    // One of those under way, not always the oldest: they are not ordered among each other.
    const auto chosen = background_.begin() + static_cast<ptrdiff_t>(turn_ * 7 % background_.size());
    const Work work = std::move(*chosen);
    background_.erase(chosen);
    work();
  }
  if (!background_.empty()) throw Fault(where() + ": the block ended with asynchronous copies under way");
}

void Block::deadlock() const {
  std::string text = where() + ": deadlock: " + std::to_string(shape_->threads - live_) + " of " +
                     std::to_string(shape_->threads) + " threads ended";
  for (unsigned rank = 0, named = 0; rank < shape_->threads && named < 4; ++rank) {
    if (threads_[rank]->done) continue;
    text += "; thread " + std::to_string(rank) + " waits in " + threads_[rank]->waits_in;
    ++named;
  }
  throw Fault(text);
}

void Block::wait(const char* what, std::function<bool()> may_go_on) {
  if (may_go_on()) return;
  current_thread->waits_in = what;
  current_thread->may_go_on = std::move(may_go_on);
  current_thread->fiber.suspend();
}

bool Block::meet(Meeting& group, void* part, const char* what, std::source_location at) {
  if (group.arrived == 0) group.place = at;
  if (group.place.line() != at.line())
    fault(std::string(what) + ": threads of one group wait in lines " + std::to_string(group.place.line()) +
          " and " + std::to_string(at.line()) + " of " + at.file_name());
  current_thread->part = part;
  if (++group.arrived == group.size) {
    group.arrived = 0;
    ++group.generation;
    return true;
  }
  wait(what, [&group, generation = group.generation] { return group.generation != generation; });
  return false;
}

void* Block::static_shared(const void* site, size_t bytes) {
  for (const SharedVariable& variable : variables_)
    if (variable.site == site) return variable.data;
  const size_t room = round_up(bytes + kGap, kSharedAlignment);
  if (shared_used_ + bytes > kStaticShared) fault("more than 48 KiB of static shared memory");
  variables_.push_back({site, shared_.get() + shared_used_, bytes, room});
  shared_used_ += room;
  return variables_.back().data;
}

void Block::check_shared() const {
  for (const SharedVariable& variable : variables_)
    for (size_t i = variable.bytes; i < variable.room; ++i)
      if (variable.data[i] != std::byte{kPoison})
        throw Fault(where() + ": write past the end of a shared variable of " +
                    std::to_string(variable.bytes) + " bytes");
}

std::string where() {
  std::string text = std::string("kernel ") + current_block->shape().kernel;
  text += ", block " + std::to_string(current_block->index());
  return current_thread ? text + ", thread " + std::to_string(current_thread->rank) : text;
}

void fault(const std::string& what) {
  if (!current_thread) throw Fault(where() + ": " + what);
  current_block->end_with(where() + ": " + what);
}

void run_grid(const LaunchShape& shape, const Work& kernel) {
  if (shape.dynamic_shared > Block::kAllShared)
    throw Fault(std::string("kernel ") + shape.kernel + ": asks for " + std::to_string(shape.dynamic_shared) +
                " bytes of dynamic shared memory, more than an SM has");
  if (!current_block) current_block = new Block;
  try {
    const WatchMemory watch;
    for (unsigned index = 0; index < shape.blocks; ++index) current_block->run(shape, index, kernel);
  } catch (...) {
    delete std::exchange(current_block, nullptr);  // its threads cannot go on
    throw;
  }
  if (const auto overrun = memory().overrun())
    throw Fault(std::string("kernel ") + shape.kernel + ": " + *overrun);
}

}  // namespace kotoba::sim
