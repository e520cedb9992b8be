// The SIMD kernels of the CPU backend as one table per instruction set, chosen at load.
//
// Files named *_isa.cpp are compiled once per instruction set, each time in another namespace (KOTOBA_ISA).
// Rule for them: no std:: templates or inline functions with external linkage, lest the linker merge an
// AVX-512 copy into baseline code. Everything static, or inside the namespace.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "../op_types.h"
#include "../tensor_view.h"

namespace kotoba::cpu {

class ThreadPool;

// What every kernel gets: threads to run on, and the flag that asks it to stop early.
struct Context {
  ThreadPool* pool;
  int threads;
  const std::atomic<bool>* cancelled;
};

struct Kernels {
  const char* isa;  // "plain", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"
  bool (*supported)();

  // One row of `count` weights (whole blocks) to float.
  void (*decode_row)(DType dtype, const std::byte* src, float* dst, int64_t count);
  // `count` finite floats (whole blocks) to F16, BF16 or a GGUF type that files are written in; false for
  // others.
  bool (*quantize_row)(DType dtype, const float* src, int64_t count, std::byte* dst);
  void (*linear)(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&, Precision);
  void (*attention)(const Context&, TensorView out, TensorView q, TensorView k, TensorView v,
                    const Attention&);
  void (*rms_norm)(const Context&, TensorView out, TensorView x, TensorView weight, float eps);
  void (*layer_norm)(const Context&, TensorView out, TensorView x, TensorView weight, TensorView bias,
                     float eps);
  void (*layer_norm_modulated)(const Context&, TensorView out, TensorView x, TensorView shift,
                               TensorView scale, float eps);
  void (*head_norm_rope)(const Context&, TensorView out, TensorView x, TensorView weight, TensorView rotation,
                         const HeadNormRope&);
  void (*activate)(const Context&, TensorView out, TensorView x, Activation);
  void (*combine)(const Context&, TensorView out, const Terms&);
  void (*conv2d)(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&, const Conv2d&,
                 Precision);
  void (*group_norm)(const Context&, TensorView out, TensorView x, TensorView weight, TensorView bias,
                     const GroupNorm&);
};

// The best table this CPU supports; KOTOBA_ISA=plain|avx2|… forces one (ERR_ARGUMENT if it cannot run).
const Kernels& kernels();
// The table of that name.
const Kernels& kernels(std::string_view isa);

}  // namespace kotoba::cpu
