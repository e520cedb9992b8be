#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "memory.h"
#include "watch.h"

namespace kotoba::sim {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kArea = size_t{256} << 10;  // of each kind of shared memory
constexpr size_t kGap = 64;                  // bytes between shared variables that nobody may write
constexpr int kPoison = 0xff;

std::byte* guarded_area(size_t bytes) {
  void* area =
      mmap(nullptr, bytes + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) throw std::bad_alloc();
  mprotect(static_cast<char*>(area) + kPage, bytes, PROT_READ | PROT_WRITE);
  return static_cast<std::byte*>(area) + kPage;
}

std::string show(dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

}  // namespace

// Static variables fill the first area from its start; dynamic memory ends where the second area does.
Block::Block() : shared_(guarded_area(kArea + kArea)) { std::memset(shared_, kPoison, kArea); }

bool Block::in_shared(const void* address) const {
  return address >= shared_ - kPage && address < shared_ + 2 * kArea + kPage;
}

void Block::start(dim3 index) {
  index_ = index;
  const dim3 size = shape_->block;
  thread_count_ = live_ = size.x * size.y * size.z;
  while (threads_.size() < thread_count_) threads_.push_back(std::make_unique<Thread>());
  for (unsigned rank = 0; rank < thread_count_; ++rank) {
    Thread& thread = *threads_[rank];
    thread.index = dim3(rank % size.x, rank / size.x % size.y, rank / size.x / size.y);
    thread.rank = rank;
    thread.done = false;
    thread.may_go_on = nullptr;
    thread.copies = {};
    thread.fiber.start(&Block::thread_body, &thread);
  }
  std::memset(shared_, kPoison, shared_used_);
  const size_t dynamic = (shape_->dynamic_shared + 1023) / 1024 * 1024;
  dynamic_ = shared_ + 2 * kArea - dynamic;
  std::memset(dynamic_, kPoison, dynamic);
  shared_used_ = 0;
  variables_.clear();
  background_.clear();
  barrier_ = {};
  warps_.clear();
  warpgroups_.assign((thread_count_ + 127) / 128, {});
  fault_.clear();
}

void Block::run(const LaunchShape& shape, dim3 index, const std::function<void()>& kernel) {
  shape_ = &shape;
  kernel_ = &kernel;
  start(index);
  run_until_done();
  check_shared();
}

void Block::thread_body(void* argument) {
  auto* thread = static_cast<Thread*>(argument);
  try {
    (*current_block->kernel_)();
  } catch (const Fault& fault) {
    current_block->fault_ = fault.what();
  }
  thread->done = true;
}

void Block::end_thread_with(std::string fault) {
  fault_ = std::move(fault);
  current_thread->done = true;
  current_thread->fiber.leave();
}

// (first + i * step) % count for i < count: all numbers below `count`, in an order that depends on `seed`.
struct Block::Order {
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

// One warp after the other goes as far as it can without them, so that what they share has to be guarded.
// False if none could go on.
bool Block::take_turns() {
  const Order warps(turn_++ + index_.x * 31 + index_.y * 17, (thread_count_ + 31) / 32);
  bool progress = false;
  for (unsigned i = 0; i < warps.count; ++i)
    while (run_warp(warps[i])) progress = true;
  return progress;
}

// Every thread of the warp that can go on does, once.
bool Block::run_warp(unsigned warp) {
  const unsigned first = warp * 32;
  const Order lanes(turn_++ + index_.x, std::min(32u, thread_count_ - first));
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
    const size_t chosen = turn_ * 7 % background_.size();
    const Copy work = std::move(background_[chosen]);
    background_.erase(background_.begin() + static_cast<ptrdiff_t>(chosen));
    work();
  }
  if (!background_.empty()) throw Fault(where() + ": the block ended with asynchronous copies under way");
}

void Block::deadlock() const {
  std::string text = where() + ": deadlock: " + std::to_string(thread_count_ - live_) + " of " +
                     std::to_string(thread_count_) + " threads ended";
  for (unsigned rank = 0, named = 0; rank < thread_count_ && named < 4; ++rank) {
    const Thread& thread = *threads_[rank];
    if (thread.done) continue;
    text += "; thread " + show(thread.index) + " waits in " + thread.waits_in;
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

void* Block::static_shared(const void* site, size_t bytes, size_t alignment) {
  for (const SharedVariable& variable : variables_)
    if (variable.site == site) return variable.data;
  const size_t offset = (shared_used_ + alignment - 1) / alignment * alignment;
  if (offset + bytes > kStaticShared) fault("more than 48 KiB of static shared memory");
  variables_.push_back({site, shared_ + offset, bytes});
  shared_used_ = offset + bytes + kGap;
  return shared_ + offset;
}

void Block::check_shared() const {
  for (const SharedVariable& variable : variables_)
    for (const std::byte* p = variable.data + variable.bytes; p < variable.data + variable.bytes + kGap;
         ++p) {
      if (p >= shared_ + shared_used_) break;
      bool owned = false;  // by a neighbour that alignment moved closer
      for (const SharedVariable& other : variables_) owned |= p >= other.data && p < other.data + other.bytes;
      if (!owned && *p != std::byte{kPoison})
        throw Fault(where() + ": write past the end of a shared variable of " +
                    std::to_string(variable.bytes) + " bytes");
    }
}

Meeting& Block::warp_meeting(unsigned warp, unsigned mask) {
  for (WarpMeeting& known : warps_)
    if (known.warp == warp && known.mask == mask) return *known.meeting;
  warps_.push_back({warp, mask, std::make_unique<Meeting>()});
  return *warps_.back().meeting;
}

std::string where() {
  std::string text = "outside of kernels";
  if (current_block) text = std::string("kernel ") + current_block->shape().kernel;
  if (current_block) text += ", block " + show(current_block->index());
  if (current_thread) text += ", thread " + show(current_thread->index);
  return text;
}

void fault(const std::string& what) { throw Fault(where() + ": " + what); }

void run_grid(const LaunchShape& shape, const std::function<void()>& kernel) {
  static auto* block = new Block;  // its fibers' stacks serve every launch
  const WatchMemory watch;
  if (shape.dynamic_shared > Block::kAllShared)
    throw Fault(std::string("kernel ") + shape.kernel + ": asks for " + std::to_string(shape.dynamic_shared) +
                " bytes of dynamic shared memory, more than an SM has");
  current_block = block;
  struct Leave {
    ~Leave() { current_block = nullptr, current_thread = nullptr; }
  } leave;
  for (unsigned z = 0; z < shape.grid.z; ++z)
    for (unsigned y = 0; y < shape.grid.y; ++y)
      for (unsigned x = 0; x < shape.grid.x; ++x) block->run(shape, dim3(x, y, z), kernel);
  if (const auto overrun = memory().overrun())
    throw Fault(std::string("kernel ") + shape.kernel + ": " + *overrun);
}

}  // namespace kotoba::sim
