// Device-neutral checks of op arguments, run on the enqueuing thread so that a mistake throws where it was
// made. Each throws ERR_ARGUMENT with the values. Backends rely on them.
#pragma once

#include <string>

#include "op_types.h"

namespace kotoba {

struct DeviceLimits {
  bool takes_16_bit;  // Backend::takes_16_bit
};

void check_linear(const DeviceLimits&, const TensorView& out, const TensorView& x, const TensorView& w,
                  const Epilogue&, Precision);
void check_attention(const DeviceLimits&, const TensorView& out, const TensorView& q, const TensorView& k,
                     const TensorView& v, const Attention&);
void check_rms_norm(const DeviceLimits&, const TensorView& out, const TensorView& x, const TensorView& weight,
                    float eps);
void check_layer_norm(const DeviceLimits&, const TensorView& out, const TensorView& x,
                      const TensorView& weight, const TensorView& bias, float eps);
void check_layer_norm_modulated(const DeviceLimits&, const TensorView& out, const TensorView& x,
                                const TensorView& shift, const TensorView& scale, float eps);
void check_head_norm_rope(const DeviceLimits&, const TensorView& out, const TensorView& x,
                          const TensorView& weight, const TensorView& rotation, const HeadNormRope&);
void check_copy_tokens(const DeviceLimits&, const TensorView& out, const TensorView& x, const CopyTokens&);
void check_activate(const DeviceLimits&, const TensorView& out, const TensorView& x, Activation);
void check_combine(const DeviceLimits&, const TensorView& out, const Terms&);
void check_conv2d(const DeviceLimits&, const TensorView& out, const TensorView& x, const TensorView& w,
                  const Epilogue&, const Conv2d&, Precision);
void check_conv_weight(const DeviceLimits&, const TensorView& out, const TensorView& w, int64_t taps);
void check_group_norm(const DeviceLimits&, const TensorView& out, const TensorView& x,
                      const TensorView& weight, const TensorView& bias, const GroupNorm&);
void check_patchify(const DeviceLimits&, const TensorView& out, const TensorView& x, const Patches&);
void check_unpatchify(const DeviceLimits&, const TensorView& out, const TensorView& x, const Patches&);
void check_embedding(const DeviceLimits&, const TensorView& out, const TensorView& table,
                     const TensorView& ids, bool accumulate);
void check_decode(const DeviceLimits&, const TensorView& out, const TensorView& x);
void check_quantize(const DeviceLimits&, const TensorView& out, const TensorView& x);
void check_transpose(const DeviceLimits&, const TensorView& out, const TensorView& x);
void check_require_finite(const DeviceLimits&, const TensorView& x, const std::string& where);

}  // namespace kotoba
