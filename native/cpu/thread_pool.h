// The process-wide pool that every CPU op runs on: chunks are dealt dynamically and the caller takes part, so
// that a core somebody else is using only slows its own chunk down. Workers start when first needed, spin
// briefly after a region and then sleep.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kotoba::cpu {

class ThreadPool {
 public:
  using Chunk = void (*)(void* context, int64_t chunk);

  static ThreadPool& instance();
  static int default_threads();  // KOTOBA_THREADS, else the cores this process may use

  // Calls fn(context, i) once for each 0 <= i < chunks, on up to `threads` threads, and returns when all
  // calls have returned. Regions of different callers take turns; a region inside a chunk runs on its own
  // thread. The first exception of a chunk stops the dealing and is thrown here.
  void run(int threads, int64_t chunks, Chunk fn, void* context);

  // The same for a lambda: pool.run(threads, chunks, [&](int64_t chunk) {…}). The instance is local to the
  // lambda's own file and instruction set.
  template <typename Fn>
  void run(int threads, int64_t chunks, const Fn& fn) {
    run(
        threads, chunks, [](void* context, int64_t chunk) { (*static_cast<const Fn*>(context))(chunk); },
        const_cast<Fn*>(&fn));
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

 private:
  ThreadPool();
  ~ThreadPool() = delete;  // lives as long as the process: threads may still run while it exits
  struct State;
  State* state_;
};

// Which of a thread's two scratch buffers: kOp is what an op's caller prepares for all threads of its
// regions, kThread what one chunk needs for itself.
enum class Scratch { kOp, kThread };

// The calling thread's buffer of that kind, 64-byte aligned and at least `bytes` long. The next call for the
// same kind on the same thread may move and clear it, so ask once per op or chunk. It is kept for the next op
// and freed with its thread. Throws ERR_OUT_OF_MEMORY.
void* scratch(Scratch kind, int64_t bytes);

}  // namespace kotoba::cpu
