// Row-wise ops that only move and decode: copy_tokens, embedding, decode, transpose, and the finite check.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "../errors.h"
#include "cpu_backend.h"
#include "thread_pool.h"

namespace kotoba::cpu {
namespace {

constexpr int64_t kCopyTokens = 16;  // to a chunk: some hundred KB of a transformer's
constexpr int64_t kTile = 32;        // transpose tile: 32 x 32 floats stay in L1

int64_t first_non_finite(const float* x, int64_t count) {
  // An all-ones exponent is an infinity or a NaN. The inner loop has no branch, so it vectorises.
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= (std::bit_cast<uint32_t>(x[i]) & kExponent) == kExponent;
  if (!found) return -1;
  return std::find_if(x, x + count, [](float v) { return !std::isfinite(v); }) - x;
}

}  // namespace

void CpuBackend::copy_tokens(TensorView out, TensorView x, CopyTokens how) {
  const int64_t from = x.rows() / how.batch, to = out.rows() / how.batch;
  const size_t bytes = static_cast<size_t>(x.cols()) * sizeof(float);
  const int64_t chunks = (how.tokens + kCopyTokens - 1) / kCopyTokens;  // of a sequence
  context_.pool->run(context_.threads, how.batch * chunks, [&](int64_t chunk) {
    if (interrupted()) return;
    const int64_t b = chunk / chunks, first = chunk % chunks * kCopyTokens;
    for (int64_t t = first; t < std::min(how.tokens, first + kCopyTokens); ++t)
      std::memcpy(out.row<float>(b * to + how.out_offset + t), x.row<float>(b * from + how.x_offset + t),
                  bytes);
  });
}

void CpuBackend::embedding(TensorView out, TensorView table, TensorView ids, bool accumulate) {
  std::vector<float> row(accumulate ? table.cols() : 0);
  for (int64_t t = 0; t < ids.elements(); ++t) {
    const int32_t id = ids.as<int32_t>()[t];
    if (id < 0 || id >= table.rows())
      throw Error("ERR_TOKEN_ID", detail::join("embedding: id ", id, " at position ", t,
                                               " is outside the table of ", table.rows(), " rows"));
    float* target = out.row<float>(t);
    kernels_.decode_row(table.dtype, table.row_bytes(id), accumulate ? row.data() : target, table.cols());
    for (size_t c = 0; c < row.size(); ++c) target[c] += row[c];
  }
}

void CpuBackend::decode(TensorView out, TensorView x) {
  for (int64_t r = 0; r < x.rows() && !interrupted(); ++r)
    kernels_.decode_row(x.dtype, x.row_bytes(r), out.row<float>(r), x.cols());
}

void CpuBackend::quantize(TensorView out, TensorView x) {
  constexpr int64_t kRows = 16;  // to a chunk
  context_.pool->run(context_.threads, (x.rows() + kRows - 1) / kRows, [&](int64_t chunk) {
    if (interrupted()) return;
    for (int64_t r = chunk * kRows; r < std::min(x.rows(), (chunk + 1) * kRows); ++r)
      require(kernels_.quantize_row(out.dtype, x.row<float>(r), x.cols(), out.row_bytes(r)),
              "quantize: ", kotoba::info(out.dtype).name, " is read here, but not written");
  });
}

void CpuBackend::transpose(TensorView out, TensorView x) {
  const int64_t rows = x.rows(), cols = x.cols();
  std::vector<float> band(kTile * cols);
  for (int64_t r0 = 0; r0 < rows && !interrupted(); r0 += kTile) {
    const int64_t height = std::min(kTile, rows - r0);
    for (int64_t r = 0; r < height; ++r)
      kernels_.decode_row(x.dtype, x.row_bytes(r0 + r), band.data() + r * cols, cols);
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = 0; r < height; ++r) out.as<float>()[c * rows + r0 + r] = band[r * cols + c];
  }
}

void CpuBackend::require_finite(TensorView x, std::string where) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float* row = x.row<float>(r);
    const int64_t c = first_non_finite(row, x.cols());
    if (c >= 0)
      throw Error("ERR_NON_FINITE",
                  detail::join(where, ": ", row[c], " at row ", r, ", column ", c,
                               "; expected finite values. The weights are damaged, or a narrower "
                               "precision overflowed: try --precision fp32"));
  }
}

}  // namespace kotoba::cpu
