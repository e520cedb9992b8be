#include "thread_pool.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "../errors.h"

namespace kotoba::cpu {
namespace {

constexpr int kMaxThreads = 1024;
// Long enough to bridge the gap between two ops, short enough not to take a shared core from others.
constexpr auto kSpin = std::chrono::microseconds(20);

// A seat count: helpers that may still join in the high half, helpers at work in the low half.
constexpr uint32_t kFreeSeat = 1u << 16;
constexpr uint32_t kSeated = kFreeSeat - 1;

thread_local bool in_region = false;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True as soon as `done()`, false when the spinning time is over.
template <typename Done>
bool spin_until(Done done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// Keeps this library mapped: workers sleep in its code, and a JS worker thread that ends closes its addons.
void pin_library() {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&pin_library), &self) != 0 && self.dli_fname != nullptr)
    dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

// A thread's scratch memory.
struct Arena {
  void* data = nullptr;
  int64_t bytes = 0;

  ~Arena() { free(data); }

  void* reserve(int64_t wanted) {
    if (wanted <= bytes) return data;
    free(data);
    data = nullptr;
    bytes = 0;
    constexpr int64_t kPage = int64_t{64} << 10, kHugePage = int64_t{2} << 20;
    const bool large = wanted >= 2 * kHugePage;
    const int64_t unit = large ? kHugePage : kPage;
    const int64_t size = (wanted + unit - 1) / unit * unit;
    if (posix_memalign(&data, large ? kHugePage : 4096, static_cast<size_t>(size)) != 0) {
      data = nullptr;
      throw Error("ERR_OUT_OF_MEMORY",
                  detail::join("cpu: cannot allocate ", size, " bytes of scratch memory"));
    }
    if (large) madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint
    bytes = size;
    return data;
  }
};

}  // namespace

struct ThreadPool::State {
  std::mutex turn;  // held by the region that runs
  int workers = 0;

  // The region. Written while no seat is free and nobody is seated.
  Chunk fn = nullptr;
  void* context = nullptr;
  int64_t chunks = 0;
  std::atomic<int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  std::atomic<uint32_t> seats{0};
  std::atomic<uint32_t> region{0};  // counts regions; what workers wait for

  void deal() noexcept {
    in_region = true;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      try {
        fn(context, i);
      } catch (...) {
        next.store(chunks, std::memory_order_relaxed);
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
    }
    in_region = false;
  }

  bool take_seat() {
    uint32_t now = seats.load(std::memory_order_relaxed);
    while (now >= kFreeSeat)
      if (seats.compare_exchange_weak(now, now - kFreeSeat + 1, std::memory_order_acquire)) return true;
    return false;
  }

  void leave_seat() {
    if (seats.fetch_sub(1, std::memory_order_acq_rel) == 1) seats.notify_one();
  }

  [[noreturn]] void serve(uint32_t seen) {
    for (;;) {
      if (!spin_until([&] { return region.load(std::memory_order_relaxed) != seen; })) region.wait(seen);
      seen = region.load();
      if (!take_seat()) continue;
      deal();
      leave_seat();
    }
  }

  // Fewer than wanted where the system refuses more threads.
  void start_workers(int wanted) {
    try {
      for (; workers < wanted; ++workers) std::thread([this, seen = region.load()] { serve(seen); }).detach();
    } catch (const std::system_error&) {
    }
  }

  void open(int helpers) {
    start_workers(helpers);
    seats.store(static_cast<uint32_t>(helpers) * kFreeSeat, std::memory_order_release);
    region.fetch_add(1);
    region.notify_all();
  }

  // Takes the free seats away and waits for those at work.
  void close() {
    uint32_t now = seats.fetch_and(kSeated, std::memory_order_acq_rel) & kSeated;
    if (now == 0 || spin_until([&] { return seats.load(std::memory_order_acquire) == 0; })) return;
    while ((now = seats.load(std::memory_order_acquire)) != 0) seats.wait(now);
  }
};

ThreadPool::ThreadPool() : state_(new State) { pin_library(); }

ThreadPool& ThreadPool::instance() {
  static ThreadPool* const pool = new ThreadPool;
  return *pool;
}

int ThreadPool::default_threads() {
  if (const char* text = std::getenv("KOTOBA_THREADS"); text != nullptr && *text != 0) {
    char* end = nullptr;
    const long threads = std::strtol(text, &end, 10);
    require(*end == 0 && threads >= 1 && threads <= kMaxThreads, "KOTOBA_THREADS: expected 1 to ",
            kMaxThreads, ", got \"", text, "\"");
    return static_cast<int>(threads);
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

void ThreadPool::run(int threads, int64_t chunks, Chunk fn, void* context) {
  const int64_t helpers = (threads < chunks ? threads : chunks) - 1;
  if (helpers < 1 || in_region) {
    for (int64_t i = 0; i < chunks; ++i) fn(context, i);
    return;
  }
  State& s = *state_;
  std::exception_ptr error;
  {
    const std::lock_guard lock(s.turn);
    s.fn = fn;
    s.context = context;
    s.chunks = chunks;
    s.next.store(0, std::memory_order_relaxed);
    s.open(static_cast<int>(helpers < kMaxThreads ? helpers : kMaxThreads));
    s.deal();
    s.close();
    error = s.error;
    s.error = nullptr;
  }
  if (error) std::rethrow_exception(error);
}

void* scratch(Scratch kind, int64_t bytes) {
  thread_local Arena arenas[2];
  return arenas[static_cast<int>(kind)].reserve(bytes);
}

}  // namespace kotoba::cpu
