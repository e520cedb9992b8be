// What the *_isa.cpp files of one instruction set offer each other; kernels_isa.cpp makes the table of them.
#pragma once

#include "kernels.h"

namespace kotoba::cpu::KOTOBA_ISA {

// One row of `count` weights (whole blocks) of any weight dtype to float.
void decode_row(DType dtype, const std::byte* src, float* dst, int64_t count);

// `count` finite floats (whole blocks) to a type that files are written in; false for others.
bool quantize_row(DType dtype, const float* x, int64_t count, std::byte* out);

static inline bool is_cancelled(const Context& context) {
  return context.cancelled->load(std::memory_order_relaxed);
}

void linear_fp32(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&);
void linear_int8(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&);
void attention(const Context&, TensorView out, TensorView q, TensorView k, TensorView v, const Attention&);
void rms_norm(const Context&, TensorView out, TensorView x, TensorView weight, float eps);
void layer_norm(const Context&, TensorView out, TensorView x, TensorView weight, TensorView bias, float eps);
void layer_norm_modulated(const Context&, TensorView out, TensorView x, TensorView shift, TensorView scale,
                          float eps);
void head_norm_rope(const Context&, TensorView out, TensorView x, TensorView weight, TensorView rotation,
                    const HeadNormRope&);
void activate(const Context&, TensorView out, TensorView x, Activation);
void combine(const Context&, TensorView out, const Terms&);
void conv2d(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&, const Conv2d&,
            Precision);
void group_norm(const Context&, TensorView out, TensorView x, TensorView weight, TensorView bias,
                const GroupNorm&);

}  // namespace kotoba::cpu::KOTOBA_ISA
