// kotoba_blas.node: the matrix products that `kotoba bench ops` compares with, and memcpy as its bandwidth
// limit. OpenBLAS and oneDNN are opened at run time and never linked; a missing one is reported, not an
// error. Calls run on the JavaScript thread and block it: for bench processes only.
#include <dlfcn.h>
#include <napi.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>
#include <thread>
#include <vector>

namespace kotoba::bench {
namespace {

// ---- the libraries, as their headers declare them

enum CblasOrder { kRowMajor = 101 };
enum CblasTranspose { kNoTrans = 111, kTrans = 112 };

struct OpenBlas {
  void (*sgemm)(CblasOrder, CblasTranspose, CblasTranspose, int m, int n, int k, float alpha, const float* a,
                int lda, const float* b, int ldb, float beta, float* c, int ldc) = nullptr;
  void (*set_threads)(int) = nullptr;
  char* (*config)() = nullptr;
  char* (*core)() = nullptr;
};

struct OneDnn {
  struct Version {
    int major, minor, patch;  // the fields that follow differ between versions
  };
  int (*sgemm)(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
               int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) = nullptr;
  int (*u8s8s32)(char transa, char transb, char offsetc, int64_t m, int64_t n, int64_t k, float alpha,
                 const uint8_t* a, int64_t lda, uint8_t ao, const int8_t* b, int64_t ldb, int8_t bo,
                 float beta, int32_t* c, int64_t ldc, const int32_t* co) = nullptr;
  const Version* (*version)() = nullptr;
  int (*isa)() = nullptr;              // dnnl_cpu_isa_t, a set of bits
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
      find(library, "openblas_get_config", openblas.config) &&
      find(library, "openblas_get_corename", openblas.core)) {
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
  if (library && find(library, "dnnl_sgemm", onednn.sgemm) &&
      find(library, "dnnl_gemm_u8s8s32", onednn.u8s8s32) && find(library, "dnnl_version", onednn.version) &&
      find(library, "dnnl_get_effective_cpu_isa", onednn.isa) &&
      find(library, "omp_set_num_threads", onednn.set_threads)) {
    const OneDnn::Version& v = *onednn.version();
    found["version"] =
        "oneDNN " + std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
    found["instructions"] = double(onednn.isa());
    return found;
  }
  onednn = {};
  found["missing"] = library ? "libdnnl lacks a function that is needed (an OpenMP build has them all)" : why;
  return found;
}

// load(): { openblas, onednn }, each { version, instructions } or { missing }. The environment variables
// OPENBLAS_CORETYPE and ONEDNN_MAX_CPU_ISA count as they are at this call.
Napi::Value load(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result["openblas"] = load_openblas(info.Env());
  result["onednn"] = load_onednn(info.Env());
  return result;
}

// setThreads(count)
void set_threads(const Napi::CallbackInfo& info) {
  const int count = info[0].As<Napi::Number>().Int32Value();
  if (openblas.set_threads) openblas.set_threads(count);
  if (onednn.set_threads) onednn.set_threads(count);
}

// ---- operands

// allocate(bytes): an ArrayBuffer in huge pages, like the device's own memory.
Napi::Value allocate(const Napi::CallbackInfo& info) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const auto bytes = static_cast<size_t>(info[0].As<Napi::Number>().Int64Value());
  const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* data = nullptr;
  if (posix_memalign(&data, kHugePage, size) != 0)
    throw Napi::Error::New(info.Env(), "blas_peer: cannot allocate " + std::to_string(size) + " bytes");
  madvise(data, size, MADV_HUGEPAGE);  // a hint
  return Napi::ArrayBuffer::New(info.Env(), data, bytes, [](Napi::BasicEnv, void* memory) { free(memory); });
}

template <typename T>
struct Span {
  T* data;
  int64_t length;
};

template <typename T>
Span<T> span_from(Napi::Value value) {
  const auto array = value.As<Napi::TypedArray>();
  auto* bytes = static_cast<std::byte*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  return {reinterpret_cast<T*>(bytes), static_cast<int64_t>(array.ByteLength() / sizeof(T))};
}

int64_t integer_from(Napi::Object object, const char* name) {
  return object.Get(name).As<Napi::Number>().Int64Value();
}

// out [m, n] = x [m, k] · w [n, k]ᵀ, `reps` times; w holds several copies, used in turn from number `first`
// on.
struct Product {
  int64_t m, n, k, first, reps, copies;

  template <typename Out, typename X, typename W>
  static Product from(const Napi::CallbackInfo& info, Napi::Value value, Span<Out> out, Span<X> x,
                      Span<W> w) {
    const auto object = value.As<Napi::Object>();
    Product p = {integer_from(object, "m"),     integer_from(object, "n"),    integer_from(object, "k"),
                 integer_from(object, "first"), integer_from(object, "reps"), 0};
    p.copies = p.n * p.k > 0 ? w.length / (p.n * p.k) : 0;
    if (p.m < 1 || p.copies < 1 || out.length < p.m * p.n || x.length < p.m * p.k)
      throw Napi::RangeError::New(info.Env(), "blas_peer: the operands are smaller than the product");
    return p;
  }

  int64_t weight(int64_t rep) const { return (first + rep) % copies * (n * k); }
};

// ---- the products

// sgemm(library, product, out, x, w): F32
void sgemm(const Napi::CallbackInfo& info) {
  const auto out = span_from<float>(info[2]);
  const auto x = span_from<const float>(info[3]);
  const auto w = span_from<const float>(info[4]);
  const Product p = Product::from(info, info[1], out, x, w);
  const std::string library = info[0].As<Napi::String>();
  if (library == "openblas" ? !openblas.sgemm : !onednn.sgemm)
    throw Napi::Error::New(info.Env(), "blas_peer: " + library + " is not loaded");
  for (int64_t i = 0; i < p.reps; ++i) {
    const float* weight = w.data + p.weight(i);
    const int m = int(p.m), n = int(p.n), k = int(p.k);
    if (library == "openblas")
      openblas.sgemm(kRowMajor, kNoTrans, kTrans, m, n, k, 1, x.data, k, weight, k, 0, out.data, n);
    else if (const int status = onednn.sgemm('N', 'T', m, n, k, 1, x.data, k, weight, k, 0, out.data, n))
      throw Napi::Error::New(info.Env(),
                             "blas_peer: dnnl_sgemm failed with status " + std::to_string(status));
  }
}

// gemmU8S8S32(product, out, x, w): oneDNN; x unsigned, w signed bytes, out 32-bit integers
void gemm_u8s8s32(const Napi::CallbackInfo& info) {
  const auto out = span_from<int32_t>(info[1]);
  const auto x = span_from<const uint8_t>(info[2]);
  const auto w = span_from<const int8_t>(info[3]);
  const Product p = Product::from(info, info[0], out, x, w);
  if (!onednn.u8s8s32) throw Napi::Error::New(info.Env(), "blas_peer: onednn is not loaded");
  const int32_t offset = 0;
  for (int64_t i = 0; i < p.reps; ++i)
    if (const int status = onednn.u8s8s32('N', 'T', 'F', p.m, p.n, p.k, 1, x.data, p.k, 0,
                                          w.data + p.weight(i), p.k, 0, 0, out.data, p.n, &offset))
      throw Napi::Error::New(info.Env(), "blas_peer: u8s8s32 failed with status " + std::to_string(status));
}

// copy(out, from, bytes, first, reps, threads): memcpy of `bytes` to the start of `out`, `reps` times, from
// all places of `from` in turn; each thread copies its own share of every one.
void copy(const Napi::CallbackInfo& info) {
  const auto out = span_from<std::byte>(info[0]);
  const auto from = span_from<const std::byte>(info[1]);
  const auto number = [&](int i) { return info[i].As<Napi::Number>().Int64Value(); };
  const int64_t bytes = number(2), first = number(3), reps = number(4), threads = number(5);
  const int64_t places = bytes > 0 ? from.length / bytes : 0;
  if (places < 1 || out.length < bytes || threads < 1)
    throw Napi::RangeError::New(info.Env(), "blas_peer: nothing to copy, or no room for it");
  const auto share = [=](int64_t thread) {
    const int64_t begin = bytes * thread / threads, end = bytes * (thread + 1) / threads;
    for (int64_t i = 0; i < reps; ++i) {
      const std::byte* source = from.data + (first + i) % places * bytes;
      std::memcpy(out.data + begin, source + begin, static_cast<size_t>(end - begin));
    }
  };
  std::vector<std::jthread> others;
  for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(share, thread);
  share(0);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("load", Napi::Function::New<&load>(env, "load"));
  exports.Set("setThreads", Napi::Function::New<&set_threads>(env, "setThreads"));
  exports.Set("allocate", Napi::Function::New<&allocate>(env, "allocate"));
  exports.Set("sgemm", Napi::Function::New<&sgemm>(env, "sgemm"));
  exports.Set("gemmU8S8S32", Napi::Function::New<&gemm_u8s8s32>(env, "gemmU8S8S32"));
  exports.Set("copy", Napi::Function::New<&copy>(env, "copy"));
  return exports;
}

}  // namespace
}  // namespace kotoba::bench

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return kotoba::bench::init(env, exports);
}
NODE_API_MODULE(kotoba_blas, init_addon)
