// A thread of control that can be put aside: each simulated CUDA thread is one. x86-64 System V only.
#pragma once

#include <cstddef>

namespace kotoba::sim {

class Fiber {
 public:
  using Body = void (*)(void* argument);

  Fiber();  // reserves a stack, with a guard page below it
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls body(argument), whatever the fiber did before. A body must not throw.
  void start(Body body, void* argument);
  // Runs the fiber until it suspends or its body returns. Called by the scheduler, on its own stack.
  void resume();
  // Back to the scheduler; returns with the next resume(). Called by the fiber.
  void suspend();
  // Back to the scheduler for good, from any stack: what the fiber had there is abandoned.
  [[noreturn]] void leave();

 private:
  static void enter(Fiber* self);

  static constexpr size_t kStackBytes = size_t{256} << 10;
  char* stack_;
  void* own_ = nullptr;  // stack pointers of who does not run
  void* scheduler_ = nullptr;
  Body body_ = nullptr;
  void* argument_ = nullptr;
};

}  // namespace kotoba::sim
