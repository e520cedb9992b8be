// Every element type a tensor can be stored in: safetensors' plain types and GGUF's block types.
#pragma once

#include <cstdint>
#include <string_view>

namespace kotoba {

// name, weights per block, bytes per block. Names are those of safetensors and ggml; the order is internal.
// clang-format off
#define KOTOBA_DTYPES(X)                                                                                  \
  X(F32, 1, 4)                                                                                            \
  X(F16, 1, 2) X(BF16, 1, 2) X(F64, 1, 8) X(F8_E4M3, 1, 1) X(F8_E5M2, 1, 1) X(I64, 1, 8) X(I32, 1, 4)     \
      X(I16, 1, 2) X(I8, 1, 1) X(U64, 1, 8) X(U32, 1, 4) X(U16, 1, 2) X(U8, 1, 1) X(BOOL, 1, 1)           \
          X(Q4_0, 32, 18) X(Q4_1, 32, 20) X(Q5_0, 32, 22) X(Q5_1, 32, 24) X(Q8_0, 32, 34) X(Q8_1, 32, 36) \
              X(Q2_K, 256, 84) X(Q3_K, 256, 110) X(Q4_K, 256, 144) X(Q5_K, 256, 176) X(Q6_K, 256, 210)    \
                  X(Q8_K, 256, 292) X(IQ2_XXS, 256, 66) X(IQ2_XS, 256, 74) X(IQ3_XXS, 256, 98)            \
                      X(IQ1_S, 256, 50) X(IQ4_NL, 32, 18) X(IQ3_S, 256, 110) X(IQ2_S, 256, 82)            \
                          X(IQ4_XS, 256, 136) X(IQ1_M, 256, 56) X(TQ1_0, 256, 54) X(TQ2_0, 256, 66)       \
                              X(MXFP4, 32, 17) X(NVFP4, 64, 36) X(Q1_0, 128, 18) X(Q2_0, 64, 18)
// clang-format on

enum class DType : uint8_t {
#define X(name, block, bytes) name,
  KOTOBA_DTYPES(X)
#undef X
};

struct DTypeInfo {
  const char* name;
  int block;  // weights in one block
  int bytes;  // bytes of one block
};

inline constexpr DTypeInfo kDTypes[] = {
#define X(name, block, bytes) {#name, block, bytes},
    KOTOBA_DTYPES(X)
#undef X
};
inline constexpr int kDTypeCount = sizeof(kDTypes) / sizeof(kDTypes[0]);

constexpr const DTypeInfo& info(DType dtype) { return kDTypes[static_cast<int>(dtype)]; }

// Bytes of `count` consecutive elements; `count` is a whole number of blocks.
constexpr int64_t dtype_bytes(DType dtype, int64_t count) {
  return count / info(dtype).block * info(dtype).bytes;
}

// A weight that decodes to float: anything `linear` and `embedding` accept.
constexpr bool is_weight_dtype(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F64 ||
         dtype == DType::F8_E4M3 || dtype == DType::F8_E5M2 || dtype >= DType::Q4_0;
}

// What ops may compute with: F32, or 16 bits where only matmuls and attention read it.
constexpr bool is_activation_dtype(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

}  // namespace kotoba
