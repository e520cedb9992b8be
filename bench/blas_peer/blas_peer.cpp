// kotoba_blas.node: the matrix products that `kotoba bench ops` compares with, and memcpy as its bandwidth limit.
// OpenBLAS and oneDNN are opened at run time and never linked; a missing one is reported, not an error. Calls run
// on the JavaScript thread and block it: for bench processes only.
#include <dlfcn.h>
#include <napi.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace kotoba::bench {
namespace {

// ---- the libraries, as their headers declare them

enum CblasOrder { kRowMajor = 101 };
enum CblasTranspose { kNoTrans = 111, kTrans = 112 };

struct OpenBlas {
  void (*sgemm)(CblasOrder, CblasTranspose, CblasTranspose, int m, int n, int k, float alpha, const float* a, int lda,
                const float* b, int ldb, float beta, float* c, int ldc) = nullptr;
  void (*set_threads)(int) = nullptr;
  char* (*config)() = nullptr;
  char* (*core)() = nullptr;
};

struct OneDnn {
  struct Version {
    int major, minor, patch;  // the fields that follow differ between versions
  };
  int (*sgemm)(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
               const float* b, int64_t ldb, float beta, float* c, int64_t ldc) = nullptr;
  int (*u8s8s32)(char transa, char transb, char offsetc, int64_t m, int64_t n, int64_t k, float alpha,
                 const uint8_t* a, int64_t lda, uint8_t ao, const int8_t* b, int64_t ldb, int8_t bo, float beta,
                 int32_t* c, int64_t ldc, const int32_t* co) = nullptr;
  const Version* (*version)() = nullptr;
  int (*effective_isa)() = nullptr;
  void (*set_threads)(int) = nullptr;  // libgomp's, found through libdnnl
};

OpenBlas openblas;
OneDnn onednn;

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// The first of `names` that opens; null with the last error's text in `why`.
void* open_first(std::initializer_list<const char*> names, std::string& why) {
  for (const char* name : names) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    why = dlerror();
  }
  return nullptr;
}

Napi::Object load_openblas(Napi::Env env) {
  Napi::Object found = Napi::Object::New(env);
  std::string why;
  void* library = open_first({"libopenblas.so.0"}, why);
  if (library && find(library, "cblas_sgemm", openblas.sgemm) &&
      find(library, "openblas_set_num_threads", openblas.set_threads) &&
      find(library, "openblas_get_config", openblas.config) && find(library, "openblas_get_corename", openblas.core)) {
    found["version"] = openblas.config();
    found["instructions"] = openblas.core();
    return found;
  }
  openblas = {};
  found["missing"] = library ? "libopenblas.so.0 lacks a function that is needed" : why;
  return found;
}

Napi::Object load_onednn(Napi::Env env) {
  Napi::Object found = Napi::Object::New(env);
  std::string why;
  void* library = open_first({"libdnnl.so.3", "libdnnl.so.2"}, why);
  if (library && find(library, "dnnl_sgemm", onednn.sgemm) && find(library, "dnnl_gemm_u8s8s32", onednn.u8s8s32) &&
      find(library, "dnnl_version", onednn.version) && find(library, "omp_set_num_threads", onednn.set_threads)) {
    const OneDnn::Version& v = *onednn.version();
    found["version"] =
        "oneDNN " + std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
    const bool knows_isa = find(library, "dnnl_get_effective_cpu_isa", onednn.effective_isa);
    found["instructions"] = knows_isa ? "isa 0x" + hexadecimal(onednn.effective_isa()) : "unknown";
    return found;
  }
  onednn = {};
  found["missing"] = library ? "libdnnl lacks a function that is needed (an OpenMP build?)" : why;
  return found;
}

}  // namespace
}  // namespace kotoba::bench
