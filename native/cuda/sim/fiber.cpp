#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>

// Saves the callee's registers on the running stack, stores its pointer in *from, and continues on `to`.
extern "C" void kotoba_sim_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.hidden kotoba_sim_switch
.globl kotoba_sim_switch
.type kotoba_sim_switch, @function
kotoba_sim_switch:
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
.size kotoba_sim_switch, . - kotoba_sim_switch
# The first switch to a fiber lands here, with its Fiber in r12 and Fiber::enter in r13.
.hidden kotoba_sim_entry
.globl kotoba_sim_entry
.type kotoba_sim_entry, @function
kotoba_sim_entry:
  subq $8, %rsp
  movq %r12, %rdi
  call *%r13
  ud2
.size kotoba_sim_entry, . - kotoba_sim_entry
)");
extern "C" void kotoba_sim_entry();

namespace kotoba::sim {
namespace {
constexpr size_t kPage = 4096;
}

Fiber::Fiber() {
  void* area = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) throw std::bad_alloc();
  mprotect(area, kPage, PROT_NONE);
  stack_ = static_cast<char*>(area);
}

Fiber::~Fiber() { munmap(stack_, kStackBytes + kPage); }

void Fiber::start(Body body, void* argument) {
  body_ = body;
  argument_ = argument;
  // What kotoba_sim_switch pops: r15, r14, r13, r12, rbx, rbp, the return address.
  void* frame[8] = {nullptr, nullptr, reinterpret_cast<void*>(&Fiber::enter),     this,
                    nullptr, nullptr, reinterpret_cast<void*>(&kotoba_sim_entry), nullptr};
  char* top = stack_ + kPage + kStackBytes - sizeof frame;
  std::memcpy(top, frame, sizeof frame);
  own_ = top;
}

void Fiber::resume() { kotoba_sim_switch(&scheduler_, own_); }

void Fiber::suspend() { kotoba_sim_switch(&own_, scheduler_); }

void Fiber::leave() {
  suspend();
  __builtin_unreachable();
}

void Fiber::enter(Fiber* self) {
  self->body_(self->argument_);
  self->leave();
}

}  // namespace kotoba::sim
