// This instruction set's table. Constant-initialised: no code of a set that the CPU lacks runs at load.
#include "isa.h"

#define KOTOBA_QUOTED(name) #name
#define KOTOBA_NAME(name) KOTOBA_QUOTED(name)

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

void linear(const Context& context, TensorView out, TensorView x, TensorView w, const Epilogue& epilogue,
            Precision precision) {
  const auto op = precision == Precision::kInt8 ? linear_int8 : linear_fp32;
  op(context, out, x, w, epilogue);
}

}  // namespace

bool supported();  // defined in kernels.cpp, for the baseline

extern const Kernels table;
constinit const Kernels table = {
    .isa = KOTOBA_NAME(KOTOBA_ISA),
    .supported = supported,
    .decode_row = decode_row,
    .quantize_row = quantize_row,
    .linear = linear,
    .attention = attention,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .layer_norm_modulated = layer_norm_modulated,
    .head_norm_rope = head_norm_rope,
    .activate = activate,
    .combine = combine,
    .conv2d = conv2d,
    .group_norm = group_norm,
};

}  // namespace kotoba::cpu::KOTOBA_ISA
