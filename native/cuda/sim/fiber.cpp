#include "fiber.h"

#include "memory.h"

namespace kotoba::sim {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;

// Saves the callee's registers on the running stack, leaves its pointer in *from, and goes on with those of
// `to`. As swapcontext, without asking the system for the signal mask, which would take ten times as long.
[[gnu::naked, gnu::noipa]] void switch_stack(void** /*from*/, void* /*to*/) {
  asm(R"(
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
  )");
}

}  // namespace

Fiber::Fiber(void (*body)()) : stack_(guarded_pages(kStackBytes)) {
  // What the first switch takes from the stack: six registers, then where to go on. Above that, the place of
  // the return address that a call would have left keeps the stack aligned.
  auto** top = reinterpret_cast<void**>(stack_.get() + kStackBytes);
  top[-2] = reinterpret_cast<void*>(body);
  own_ = top - 8;
}

void Fiber::resume() { switch_stack(&scheduler_, own_); }

void Fiber::suspend() { switch_stack(&own_, scheduler_); }

}  // namespace kotoba::sim
