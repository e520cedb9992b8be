// The ops as free functions, one .cu file for each family; their contracts are those of ../backend.h.
#pragma once

#include <string>

#include "../op_types.h"
#include "context.h"
#include "report.h"

namespace kotoba::cuda {

void linear(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&, Precision);
void attention(const Context&, TensorView out, TensorView q, TensorView k, TensorView v, const Attention&,
               const int32_t* distance_buckets);
void rms_norm(const Context&, TensorView out, TensorView x, TensorView weight, float eps);
void layer_norm(const Context&, TensorView out, TensorView x, TensorView weight, TensorView bias, float eps);
void layer_norm_modulated(const Context&, TensorView out, TensorView x, TensorView shift, TensorView scale,
                          float eps);
void head_norm_rope(const Context&, TensorView out, TensorView x, TensorView weight, TensorView rotation,
                    const HeadNormRope&);
void copy_tokens(const Context&, TensorView out, TensorView x, const CopyTokens&);
void activate(const Context&, TensorView out, TensorView x, Activation);
void combine(const Context&, TensorView out, const Terms&);
void conv2d(const Context&, TensorView out, TensorView x, TensorView w, const Epilogue&, const Conv2d&,
            Precision);
void conv_weight(const Context&, TensorView out, TensorView w, int64_t taps);
void group_norm(const Context&, TensorView out, TensorView x, TensorView weight, TensorView bias,
                const GroupNorm&);
void patchify(const Context&, TensorView out, TensorView x, const Patches&);
void unpatchify(const Context&, TensorView out, TensorView x, const Patches&);
void embedding(const Context&, Report&, TensorView out, TensorView table, TensorView ids, bool accumulate);
Error unknown_token(int64_t id, int64_t position, int64_t rows);  // of an embedding's table
void decode(const Context&, TensorView out, TensorView x);
void transpose(const Context&, TensorView out, TensorView x);
void require_finite(const Context&, Report&, TensorView x, std::string where);

}  // namespace kotoba::cuda
