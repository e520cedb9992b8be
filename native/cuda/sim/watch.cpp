#include "watch.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>

#include "block.h"
#include "memory.h"

namespace kotoba::sim {
namespace {

std::atomic<bool> watching{false};
std::atomic<pthread_t> watcher;
struct sigaction previous;

// What the handler leaves for report_access, which runs on a stack of its own: the thread's may be used up.
struct Access {
  const void* address;
  bool write;
} bad_access;
alignas(16) char report_stack[size_t{64} << 10];

[[noreturn]] void report_access() {
  const std::string text = where() + ": " + (bad_access.write ? "write to " : "read of ");
  const bool shared = current_block->in_shared(bad_access.address);
  current_block->end_thread_with(text + (shared ? "memory outside of the block's shared memory"
                                                : memory().describe(bad_access.address)));
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (!watching || !pthread_equal(watcher, pthread_self()) || !current_thread) {
    sigaction(signal, &previous, nullptr);  // not ours: happens again, for whoever was here before
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  bad_access = {info->si_addr, (registers[REG_ERR] & 2) != 0};
  registers[REG_RSP] = reinterpret_cast<greg_t>(report_stack + sizeof report_stack - 8);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&report_access);
}

void install() {
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &previous);
}

// The handler needs a stack that is there even if the kernel used up its own.
void provide_signal_stack() {
  constexpr size_t kBytes = size_t{64} << 10;
  static thread_local void* stack = nullptr;
  if (stack) return;
  stack = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = kBytes;
  sigaltstack(&alternate, nullptr);
}

}  // namespace

WatchMemory::WatchMemory() {
  provide_signal_stack();
  install();
  watcher = pthread_self();
  watching = true;
}

WatchMemory::~WatchMemory() {
  watching = false;
  sigaction(SIGSEGV, &previous, nullptr);
}

}  // namespace kotoba::sim

// ---- what g++ calls; the layouts are those of its UndefinedBehaviorSanitizer interface

namespace {

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct TypeMismatch {
  SourceLocation at;
  const void* type;
  unsigned char log_alignment;
  unsigned char kind;  // 0 load, 1 store, …
};
struct OutOfBounds {
  SourceLocation at;
};

// The compiler takes for granted that the handlers below do not throw.
void report(const SourceLocation& at, const std::string& what) {
  using namespace kotoba::sim;
  if (current_thread)
    current_block->end_thread_with(where() + ": " + what + " at " + at.file + ":" + std::to_string(at.line));
}

void type_mismatch(const TypeMismatch* data, uintptr_t pointer) {
  const unsigned alignment = 1u << data->log_alignment;
  if (pointer % alignment == 0) return;
  report(data->at, std::string("misaligned ") + (data->kind == 1 ? "store" : "load") + ", " +
                       std::to_string(pointer % alignment) + " bytes past a multiple of " +
                       std::to_string(alignment));
}

}  // namespace

extern "C" {
void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, uintptr_t pointer) { type_mismatch(data, pointer); }
void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* data, uintptr_t pointer) {
  type_mismatch(data, pointer);
}
void __ubsan_handle_out_of_bounds(OutOfBounds* data, uintptr_t index) {
  report(data->at, "index " + std::to_string(static_cast<intptr_t>(index)) + " outside of an array");
}
void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, uintptr_t index) {
  __ubsan_handle_out_of_bounds(data, index);
}
}
