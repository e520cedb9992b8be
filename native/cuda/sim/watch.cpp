#include "watch.h"

#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <string>

#include "block.h"
#include "memory.h"

namespace kotoba::sim {
namespace {

thread_local bool watching = false;
struct sigaction previous;

void on_fault(int signal, siginfo_t* info, void* context) {
  if (!watching || !current_thread) {
    sigaction(signal, &previous, nullptr);  // not ours: happens again, for whoever was here before
    return;
  }
  const bool is_write = (static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
  const bool is_shared = current_block->in_shared(info->si_addr);
  fault((is_write ? "write to " : "read of ") +
        (is_shared ? "memory outside of the block's shared memory" : memory().describe(info->si_addr)));
}

}  // namespace

WatchMemory::WatchMemory() {
  // A stack that is there even if the kernel used up its own.
  alignas(16) static thread_local std::byte stack[size_t{64} << 10];
  const stack_t alternate = {stack, 0, sizeof stack};
  sigaltstack(&alternate, nullptr);
  // SA_NODEFER: the handler does not return, so nothing would let the next signal through again.
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &previous);
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

void report(const SourceLocation& at, const std::string& what) {
  if (kotoba::sim::current_thread)
    kotoba::sim::fault(what + " at " + at.file + ":" + std::to_string(at.line));
}

}  // namespace

extern "C" void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, uintptr_t pointer) {
  const unsigned alignment = 1u << data->log_alignment;
  if (pointer % alignment == 0) return;
  report(data->at, std::string("misaligned ") + (data->kind == 1 ? "store" : "load") + ", " +
                       std::to_string(pointer % alignment) + " bytes past a multiple of " +
                       std::to_string(alignment));
}

extern "C" void __ubsan_handle_out_of_bounds(SourceLocation* at, uintptr_t index) {
  report(*at, "index " + std::to_string(static_cast<intptr_t>(index)) + " outside of an array");
}
