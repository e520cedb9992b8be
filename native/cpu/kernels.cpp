// The choice of instruction set at load. This file is compiled for the baseline, so that it runs anywhere.
#include "kernels.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "../errors.h"

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kotoba::cpu {
namespace {

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

// Linux hands out the 8 KB of tile registers only to processes that ask.
[[maybe_unused]] bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_amx() {
#ifdef KOTOBA_EMULATE_AMX
  return has_avx512vnni();
#else
  return has_avx512vnni() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         may_use_tiles();
#endif
}
#endif

}  // namespace

#define KOTOBA_TABLE(set, test)     \
  namespace set {                   \
  extern const Kernels table;       \
  bool supported();                 \
  bool supported() { return test; } \
  }

KOTOBA_TABLE(plain, true)
#ifdef KOTOBA_HAS_avx2
KOTOBA_TABLE(avx2, has_avx2())
#endif
#ifdef KOTOBA_HAS_avxvnni
KOTOBA_TABLE(avxvnni, has_avx2() && __builtin_cpu_supports("avxvnni"))
#endif
#ifdef KOTOBA_HAS_avx512
KOTOBA_TABLE(avx512, has_avx512())
#endif
#ifdef KOTOBA_HAS_avx512vnni
KOTOBA_TABLE(avx512vnni, has_avx512vnni())
#endif
#ifdef KOTOBA_HAS_amx
KOTOBA_TABLE(amx, has_amx())
#endif
#undef KOTOBA_TABLE

namespace {

// Best first; the last one runs everywhere.
constexpr const Kernels* kTables[] = {
#ifdef KOTOBA_HAS_amx
    &amx::table,
#endif
#ifdef KOTOBA_HAS_avx512vnni
    &avx512vnni::table,
#endif
#ifdef KOTOBA_HAS_avx512
    &avx512::table,
#endif
#ifdef KOTOBA_HAS_avxvnni
    &avxvnni::table,
#endif
#ifdef KOTOBA_HAS_avx2
    &avx2::table,
#endif
    &plain::table,
};

const Kernels& choose() {
  const char* name = std::getenv("KOTOBA_ISA");
  if (name != nullptr && *name != 0) return kernels(name);
  for (const Kernels* table : kTables)
    if (table->supported()) return *table;
  return plain::table;
}

}  // namespace

const Kernels& kernels(std::string_view name) {
  std::string names;
  for (const Kernels* table : kTables) {
    if (name != table->isa) {
      names += std::string(names.empty() ? "" : ", ") + table->isa;
      continue;
    }
    require(table->supported(), "instruction set: this CPU cannot run ", name);
    return *table;
  }
  throw Error("ERR_ARGUMENT",
              detail::join("instruction set: expected one of ", names, ", got \"", name, "\""));
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace kotoba::cpu
