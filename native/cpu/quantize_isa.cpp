// Floats to GGUF's block types. Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 are rounded as ggml's reference does, bit for
// bit; the others minimise the squared error of each block.
#include "quantize_k.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

#define KOTOBA_QUANTIZED_TYPES(X) \
  X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS)

// C's roundf: halves away from zero.
inline int rounded_away(float v) { return static_cast<int>(v + (v < 0 ? -0.5f : 0.5f)); }

void encode(BlockQ8_0& out, const float* x) {
  const float d = magnitude(farthest(x, 32)) / 127, inverse = d != 0 ? 1 / d : 0;
  out.d = half(d);
  for (int i = 0; i < 32; ++i) out.qs[i] = static_cast<int8_t>(rounded_away(x[i] * inverse));
}

int truncated(float v, int most) {
  const int code = static_cast<int>(v);
  return code < most ? code : most;
}

Bits32 fifth_bits(const int* codes) {
  uint32_t high = 0;
  for (int i = 0; i < 32; ++i) high |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
  Bits32 bits;
  memcpy(bits.byte, &high, sizeof high);
  return bits;
}

// The value farthest from 0, with its sign, becomes code 0; 2 * half_range codes.
template <typename Block>
void encode_signed(Block& out, const float* x, int half_range, int* codes) {
  const float range = static_cast<float>(half_range);
  const float d = farthest(x, 32) / -range, inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < 32; ++i) codes[i] = truncated(x[i] * inverse + (range + 0.5f), 2 * half_range - 1);
  out.d = half(d);
  pack_nibbles(out.qs, codes, 32, 16);
}

void encode(BlockQ4_0& out, const float* x) {
  int codes[32];
  encode_signed(out, x, 8, codes);
}

void encode(BlockQ5_0& out, const float* x) {
  int codes[32];
  encode_signed(out, x, 16, codes);
  out.qh = fifth_bits(codes);
}

// Codes from the smallest value to the largest.
template <typename Block>
void encode_range(Block& out, const float* x, int most, int* codes) {
  float low = x[0], high = x[0];
  for (int i = 1; i < 32; ++i) {
    low = smaller(low, x[i]);
    high = larger(high, x[i]);
  }
  const float d = (high - low) / static_cast<float>(most), inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < 32; ++i) codes[i] = truncated((x[i] - low) * inverse + 0.5f, most);
  out.d = half(d);
  out.m = half(low);
  pack_nibbles(out.qs, codes, 32, 16);
}

void encode(BlockQ4_1& out, const float* x) {
  int codes[32];
  encode_range(out, x, 15, codes);
}

void encode(BlockQ5_1& out, const float* x) {
  int codes[32];
  encode_range(out, x, 31, codes);
  out.qh = fifth_bits(codes);
}

void encode(BlockIQ4_NL& out, const float* x) {
  out.d = half(fit_iq4(x, 32));
  const float scale = f16(out.d), inverse = scale != 0 ? 1 / scale : 0;
  int codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = nearest_iq4(x[i] * inverse);
  pack_nibbles(out.qs, codes, 32, 16);
}

template <typename Block>
void encode_all(const float* x, int64_t count, std::byte* out) {
  auto* blocks = reinterpret_cast<Block*>(out);
  for (int64_t b = 0; b < count / Block::kWeights; ++b) encode(blocks[b], x + b * Block::kWeights);
}

}  // namespace

bool quantize_row(DType dtype, const float* x, int64_t count, std::byte* out) {
  switch (dtype) {
    case DType::F16:
    case DType::BF16:
      for (int64_t i = 0; i < count; ++i) {
        const Bits16 bits = dtype == DType::F16 ? half(x[i]) : bfloat(x[i]);
        memcpy(out + 2 * i, bits.byte, 2);
      }
      return true;
#define X(name)                             \
  case DType::name:                         \
    encode_all<Block##name>(x, count, out); \
    return true;
      KOTOBA_QUANTIZED_TYPES(X)
#undef X
    default:
      return false;
  }
}

}  // namespace kotoba::cpu::KOTOBA_ISA
