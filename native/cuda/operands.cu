#include "operands.h"

#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kPiece = static_cast<int>(kRowAlignment);

// out [rows, padded_k] = x [rows, k], rounded, zeros behind; 8 numbers to a thread and access where kWide.
template <typename From, typename To, bool kWide>
__global__ void __launch_bounds__(kTileThreadCount)
    round_rows_kernel(uint16_t* out, const typename From::Stored* x, int64_t x_stride, int64_t rows,
                      int64_t k, int64_t padded_k, RowTiles tiles) {
  const RowTiles::Place at = tiles.place<kPiece>();
  if (at.row >= rows) return;
  const auto* from = x + at.row * x_stride;
  float v[kVectorsAtOnce][kPiece];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i) {
    const int64_t col = at.col + i * at.step;
    if constexpr (kWide) {
      if (col < k) load_vector<From>(v[i], from + col);
    } else {
      KOTOBA_UNROLL(unroll)
      for (int j = 0; j < kPiece; ++j) v[i][j] = col + j < k ? From::decode(from[col + j]) : 0;
    }
  }
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i) {
    const int64_t col = at.col + i * at.step;
    if (col < padded_k) store_vector<To>(out + at.row * padded_k + col, v[i]);
  }
}

template <typename From, typename To>
void round_rows(const Context& context, uint16_t* out, const TensorView& x) {
  const RowTiles tiles(x.rows(), padded(x.cols()), kPiece);
  const auto kernel =
      fits_vectors(x, kPiece) ? round_rows_kernel<From, To, true> : round_rows_kernel<From, To, false>;
  launch(context.stream, {"round_rows", tiles.blocks(), kTileThreadCount}, kernel, out,
         x.as<const typename From::Stored>(), x.row_stride, x.rows(), x.cols(), padded(x.cols()), tiles);
}

void round_rows(const Context& context, uint16_t* out, const TensorView& x, DType dtype) {
  dispatch_activation(x.dtype, "round", [&]<typename From>() {
    dispatch_16_bit(dtype, "round", [&]<typename To>() { round_rows<From, To>(context, out, x); });
  });
}

}  // namespace

Operand activation_operand(const Context& context, const TensorView& x, DType dtype) {
  Operand operand;
  operand.data = x.as<const uint16_t>();
  operand.stride = x.row_stride;
  if (x.dtype == dtype && is_operand(x)) return operand;
  operand.stride = padded(x.cols());
  operand.scratch.emplace(context.pool, 2 * x.rows() * operand.stride);
  operand.data = operand.scratch->as<uint16_t>();
  round_rows(context, operand.scratch->as<uint16_t>(), x, dtype);
  return operand;
}

void expand(const Context& context, uint16_t* out, const TensorView& w, DType dtype) {
  if (is_activation_dtype(w.dtype)) return round_rows(context, out, w, dtype);
  TensorView rows = w;
  rows.data = reinterpret_cast<std::byte*>(out);
  rows.dtype = dtype;
  rows.row_stride = padded(w.cols());
  if (rows.row_stride != w.cols())
    check(cudaMemsetAsync(out, 0, static_cast<size_t>(2 * w.rows() * rows.row_stride), context.stream.get()),
          "clearing memory");
  decode(context, rows, w);
}

}  // namespace kotoba::cuda
