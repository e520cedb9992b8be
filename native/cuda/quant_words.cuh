// Words from addresses of little alignment, and codes in the four bytes of a word.
#pragma once

#include "ptx.cuh"

namespace kotoba::cuda {

// The largest power of two that divides `bytes`, at most 16.
constexpr int block_alignment(size_t bytes) {
  return static_cast<int>(bytes & -bytes & 15 ? bytes & -bytes : 16);
}

// The alignment of what lies `offset` bytes after something aligned to `alignment`.
constexpr int alignment_at(int alignment, int offset) {
  const int own = offset & -offset;
  return offset != 0 && own < alignment ? own : alignment;
}

// out[kFirst…] = kCount words from p, which is kAlign-aligned, by the widest loads there are. Less than
// 4-aligned words are cut out of the aligned ones that hold them. Nothing else is touched, unless a word that
// follows may be: kMore says so, and saves the work of not doing it.
template <int kAlign, int kFirst, int kCount, bool kMore = false, int kWords>
__device__ __forceinline__ void load_words(const std::byte* p, uint32_t (&out)[kWords]) {
  static_assert(kFirst + kCount <= kWords);
  if constexpr (kAlign >= 16 && kCount % 4 == 0) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount / 4; ++i) {
      const uint4 four = reinterpret_cast<const uint4*>(p)[i];
      out[kFirst + 4 * i] = four.x;
      out[kFirst + 4 * i + 1] = four.y;
      out[kFirst + 4 * i + 2] = four.z;
      out[kFirst + 4 * i + 3] = four.w;
    }
  } else if constexpr (kAlign >= 8 && kCount % 2 == 0) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount / 2; ++i) {
      const uint2 two = reinterpret_cast<const uint2*>(p)[i];
      out[kFirst + 2 * i] = two.x;
      out[kFirst + 2 * i + 1] = two.y;
    }
  } else if constexpr (kAlign >= 4) {
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) out[kFirst + i] = reinterpret_cast<const uint32_t*>(p)[i];
  } else {
    const auto past = static_cast<unsigned>(reinterpret_cast<uintptr_t>(p) % 4);  // a multiple of 4
    const auto* aligned = reinterpret_cast<const uint32_t*>(p - past);
    const auto* last = aligned + (kMore || past != 0 ? kCount : kCount - 1);
    const unsigned shift = past * 8;
    uint32_t word = aligned[0];
    KOTOBA_UNROLL(unroll)
    for (int i = 0; i < kCount; ++i) {
      const uint32_t next = i + 1 < kCount ? aligned[i + 1] : *last;
      out[kFirst + i] = __funnelshift_r(word, next, shift);
      word = next;
    }
  }
}

__device__ __forceinline__ uint32_t load_u16(const std::byte* p) {
  return *reinterpret_cast<const uint16_t*>(p);
}
__device__ __forceinline__ uint32_t load_u8(const std::byte* p) {
  return *reinterpret_cast<const uint8_t*>(p);
}

__device__ __forceinline__ float half_float(uint32_t bits) {
  return ptx::f16_to_f32(static_cast<uint16_t>(bits));
}
__device__ __forceinline__ float low_half(uint32_t word) { return half_float(word & 0xffff); }
__device__ __forceinline__ float high_half(uint32_t word) { return half_float(word >> 16); }

__device__ __forceinline__ float byte_float(uint32_t word, int i) {
  return static_cast<float>(word >> 8 * i & 255);
}

// Bits 0…3 of `nibble`, one to the lowest bit of each byte.
__device__ __forceinline__ uint32_t spread_bits(uint32_t nibble) {
  return (nibble & 15) * 0x00204081u & 0x01010101u;
}
// Bit pairs 0…3 of `byte`, one to each byte.
__device__ __forceinline__ uint32_t spread_pairs(uint32_t byte) {
  const uint32_t nibbles = ((byte & 255) | (byte & 255) << 12) & 0x000f000fu;
  return (nibbles | nibbles << 6) & 0x03030303u;
}

// Sixteen bytes, looked up by nibbles: factor * values[i] + bias.
struct ByteTable {
  uint32_t words[4];
};
consteval ByteTable make_table(const int8_t (&values)[16], int factor, int bias) {
  ByteTable table{};
  for (int i = 0; i < 16; ++i)
    table.words[i / 4] |= static_cast<uint32_t>(factor * values[i] + bias) << i % 4 * 8;
  return table;
}

// low, high = the table's bytes for the low and the high nibbles of the four bytes of `word`.
__device__ __forceinline__ void look_up(const ByteTable& table, uint32_t word, uint32_t& low,
                                        uint32_t& high) {
  uint32_t pairs[2];  // of bytes 0 and 1, of bytes 2 and 3: low, high, low, high
  KOTOBA_UNROLL(unroll)
  for (int half = 0; half < 2; ++half) {
    const uint32_t nibbles = word >> 16 * half & 0xffff;
    const uint32_t lower = __byte_perm(table.words[0], table.words[1], nibbles & 0x7777);
    const uint32_t upper = __byte_perm(table.words[2], table.words[3], nibbles & 0x7777);
    pairs[half] = __byte_perm(lower, upper, 0x3210 | (nibbles & 0x8888) >> 1);
  }
  low = __byte_perm(pairs[0], pairs[1], 0x6420);
  high = __byte_perm(pairs[0], pairs[1], 0x7531);
}

}  // namespace kotoba::cuda
