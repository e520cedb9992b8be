// Picks the decoder of a dtype. Block types have a SIMD decoder in decode_{small,k,iq}.h, or else the
// portable one; both give the same bits.
#include "decode.h"

#include "decode_floats.h"
#include "decode_iq.h"
#include "decode_k.h"
#include "decode_small.h"

namespace kotoba::cpu::KOTOBA_ISA {

// What a CPU without SIMD runs: a type's own decode_simd() is the better match.
template <typename Block>
KOTOBA_INLINE void decode_simd(const Block& block, float* w) {
  decode_block(block, w);
}

namespace {

template <typename Block>
void decode_blocks(const std::byte* src, float* dst, int64_t count) {
  const auto* blocks = reinterpret_cast<const Block*>(src);
  for (int64_t b = 0; b < count / Block::kWeights; ++b) decode_simd(blocks[b], dst + b * Block::kWeights);
}

}  // namespace

DecodeFn decode_fn(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return decode_f32;
    case DType::F64:
      return decode_f64;
    case DType::F16:
      return decode_f16;
    case DType::BF16:
      return decode_bf16;
    case DType::F8_E4M3:
      return decode_f8_e4m3;
    case DType::F8_E5M2:
      return decode_f8_e5m2;
#define X(name)     \
  case DType::name: \
    return decode_blocks<Block##name>;
      KOTOBA_BLOCK_TYPES(X)
#undef X
    default:
      throw_no_decoder(dtype);
  }
}

void decode_row(DType dtype, const std::byte* src, float* dst, int64_t count) {
  decode_fn(dtype)(src, dst, count);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
