// Stored weights to float, one row (or piece of a row) at a time. Included by *_isa.cpp only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../dtype.h"

namespace kotoba::cpu {

// Decodes `count` weights, a whole number of blocks. `src` may have any alignment.
using DecodeFn = void (*)(const std::byte* src, float* dst, int64_t count);

// Throws ERR_ARGUMENT.
[[noreturn]] void throw_no_decoder(DType dtype);

namespace KOTOBA_ISA {

// The decoder of any dtype for which is_weight_dtype() holds; throws ERR_ARGUMENT for others. All instruction
// sets give the same bits.
DecodeFn decode_fn(DType dtype);

void decode_row(DType dtype, const std::byte* src, float* dst, int64_t count);

}  // namespace KOTOBA_ISA
}  // namespace kotoba::cpu
