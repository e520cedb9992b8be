// A thread of control that can be put aside: each simulated CUDA thread is one. x86-64 System V only.
#pragma once

#include <cstddef>
#include <memory>

namespace kotoba::sim {

class Fiber {
 public:
  // The first resume() calls body(), which must neither return nor throw.
  explicit Fiber(void (*body)());

  // Runs the fiber until it suspends. Called by the scheduler, on its own stack.
  void resume();
  // Back to the scheduler; returns with the next resume(), if there is one. Called by the fiber, from any
  // stack.
  void suspend();

 private:
  std::shared_ptr<std::byte> stack_;
  void *own_, *scheduler_ = nullptr;  // stack pointers of who does not run
};

}  // namespace kotoba::sim
