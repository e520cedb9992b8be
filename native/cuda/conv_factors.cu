// The factors of a convolution on tensor cores: rounded to 16 bits, or split in two F16 parts as in split.cu,
// a scale to a pixel and to an output, and laid out in lines (conv.h).
#include "conv.h"
#include "reduce.cuh"
#include "vectors.cuh"

namespace kotoba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;            // numbers that a thread makes at a time
constexpr int kSplitChannels = 32;    // to a line
constexpr int kTopExponent = 12;      // of a row's largest factor
constexpr int kLeastExponent = -100;  // smaller rows are scaled no further
constexpr uint32_t kExponentBits = 0x7f800000;

// Rows of `taps` times `channels` numbers, side by side; each tap becomes `lines` lines.
struct FactorRows {
  const std::byte* from;
  uint16_t* to;
  int64_t stride;  // numbers
  int64_t rows, channels;
  int taps, lines;
  bool wide;  // `from` may be read in vectors
};

template <typename From>
__device__ __forceinline__ void load_channels(const FactorRows& p, const typename From::Stored* from,
                                              int64_t channel, float (&v)[kVector]) {
  if (p.wide && channel + kVector <= p.channels) return load_vector<From>(v, from + channel);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVector; ++i) v[i] = channel + i < p.channels ? From::decode(from[channel + i]) : 0;
}

// ---- rounded: a thread to a vector

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads) round_factors_kernel(FactorRows p, RowTiles tiles) {
  const RowTiles::Place place = tiles.place<kVector>();
  if (place.row >= p.rows) return;
  const auto* from = reinterpret_cast<const typename From::Stored*>(p.from) + place.row * p.stride;
  const int64_t width = p.lines * ConvFactors::kLine;
  uint16_t* to = p.to + place.row * width;
  float v[kVectorsAtOnce][kVector];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (place.col + i * place.step < width) load_channels<From>(p, from, place.col + i * place.step, v[i]);
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVectorsAtOnce; ++i)
    if (place.col + i * place.step < width) store_vector<To>(to + place.col + i * place.step, v[i]);
}

// ---- split: kLanes threads to a row

// 2^exponent of a normal number.
__device__ __forceinline__ float power_of_two(int exponent) {
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}

template <int kLanes>
__device__ __forceinline__ unsigned largest_of(unsigned v) {
  KOTOBA_UNROLL(unroll)
  for (int bits = 16; bits > 0; bits /= 2) v = std::max(v, __shfl_xor_sync(kWholeWarp, v, bits));
  if constexpr (kLanes > 32) {
    KOTOBA_SHARED(parts, unsigned[kLanes / 32]);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    for (int i = 0; i < kLanes / 32; ++i) v = std::max(v, parts[i]);
  }
  return v;
}

// The largest magnitude of the row as bits, which are ordered as magnitudes are.
template <typename From, int kLanes>
__device__ __forceinline__ unsigned row_largest(const FactorRows& p, const typename From::Stored* from,
                                                int lane) {
  unsigned largest = 0;
  for (int tap = 0; tap < p.taps; ++tap)
    for (int64_t c = lane * kVector; c < p.channels; c += kLanes * kVector) {
      float v[kVector];
      load_channels<From>(p, from + tap * p.channels, c, v);
      KOTOBA_UNROLL(unroll)
      for (int i = 0; i < kVector; ++i) largest = std::max(largest, __float_as_uint(v[i]) & 0x7fffffffu);
    }
  return largest_of<kLanes>(largest);
}

__device__ __forceinline__ void split_vector(uint16_t* to, const float (&v)[kVector], float factor) {
  float high[kVector], low[kVector];
  KOTOBA_UNROLL(unroll)
  for (int i = 0; i < kVector; i += 2) {
    const float scaled[2] = {v[i] * factor, v[i + 1] * factor};
    unpack<F16Number>(F16Number::pack(scaled[0], scaled[1]), high[i], high[i + 1]);
    low[i] = scaled[0] - high[i];
    low[i + 1] = scaled[1] - high[i + 1];
  }
  store_vector<F16Number>(to, high);
  store_vector<F16Number>(to + kSplitChannels, low);
}

// shift: what is left to the other factor's scale, so that neither product overflows.
template <typename From, int kLanes>
__global__ void __launch_bounds__(kThreads) split_factors_kernel(FactorRows p, float* scale, int shift) {
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  if (row >= p.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const auto* from = reinterpret_cast<const typename From::Stored*>(p.from) + row * p.stride;
  const unsigned largest = row_largest<From, kLanes>(p, from, lane);
  const bool finite = largest < kExponentBits;
  const int exponent = largest >> 23 < 27 ? kLeastExponent : static_cast<int>(largest >> 23) - 127;
  const float factor = finite ? power_of_two(kTopExponent - exponent) : 0;
  if (lane == 0)
    scale[row] = finite ? power_of_two(exponent - kTopExponent - shift) : __uint_as_float(0x7fc00000);
  const int64_t width = p.lines * ConvFactors::kLine;
  for (int tap = 0; tap < p.taps; ++tap)
    for (int64_t c = lane * kVector; c < p.lines * kSplitChannels; c += kLanes * kVector) {
      float v[kVector] = {};
      if (finite) load_channels<From>(p, from + tap * p.channels, c, v);
      uint16_t* line = p.to + (row * p.taps + tap) * width + c / kSplitChannels * ConvFactors::kLine;
      split_vector(line + c % kSplitChannels, v, factor);
    }
}

// ---- launches

FactorRows rows_of(const TensorView& x, int64_t taps, int64_t lines, uint16_t* to) {
  const int64_t channels = x.cols() / taps;
  TensorView tap = x;
  tap.shape[tap.rank - 1] = channels;
  if (taps > 1) tap.row_stride = channels;  // what follows each other must be aligned: weights are dense
  return {x.data,
          to,
          x.row_stride,
          x.rows(),
          channels,
          static_cast<int>(taps),
          static_cast<int>(lines),
          fits_vectors(tap, kVector)};
}

void round_factors(const Context& context, FactorRows p, DType from, DType to) {
  p.rows *= p.taps;  // weights are dense: every tap is a row of its own
  if (p.taps > 1) p.stride = p.channels;
  const RowTiles tiles(p.rows, p.lines * ConvFactors::kLine, kVector);
  dispatch_activation(from, "conv2d", [&]<typename From>() {
    dispatch_16_bit(to, "conv2d", [&]<typename To>() {
      launch(context.stream, {"conv2d_round", tiles.blocks(), kThreads}, round_factors_kernel<From, To>, p,
             tiles);
    });
  });
}

template <int kLanes>
void split_factors(const Context& context, const FactorRows& p, DType from, float* scale, int shift) {
  dispatch_activation(from, "conv2d", [&]<typename From>() {
    launch(context.stream, {"conv2d_split", ceil_div(p.rows * kLanes, kThreads), kThreads},
           split_factors_kernel<From, kLanes>, p, scale, shift);
  });
}

// Weights of a dtype that no kernel here reads, decoded.
TensorView decoded(const Context& context, const TensorView& w, std::optional<Scratch>& memory) {
  if (is_activation_dtype(w.dtype)) return w;
  TensorView floats = w;
  floats.dtype = DType::F32;
  floats.row_stride = w.cols();
  memory.emplace(context.pool, dtype_bytes(DType::F32, w.elements()));
  floats.data = memory->as<std::byte>();
  decode(context, floats, w);
  return floats;
}

bool has_lines(const TensorView& x, int64_t channels) {
  return channels % ConvFactors::kLine == 0 && fits_vectors(x, kVector);
}

void add_split(const Context& context, const ConvProblem& p, const TensorView& w, ConvFactors& factors) {
  const int64_t width = factors.lines * ConvFactors::kLine, pixels = p.x.rows(), taps = p.taps();
  factors.x_memory.emplace(context.pool, pixels * (2 * width + 4));
  factors.w_memory.emplace(context.pool, w.rows() * (2 * taps * width + 4));
  uint16_t *x_parts = factors.x_memory->as<uint16_t>(), *w_parts = factors.w_memory->as<uint16_t>();
  auto* x_scale = reinterpret_cast<float*>(x_parts + pixels * width);
  auto* w_scale = reinterpret_cast<float*>(w_parts + w.rows() * taps * width);
  split_factors<32>(context, rows_of(p.x, 1, factors.lines, x_parts), p.x.dtype, x_scale, kTopExponent);
  split_factors<kThreads>(context, rows_of(w, taps, factors.lines, w_parts), w.dtype, w_scale, -kTopExponent);
  factors.x = x_parts;
  factors.w = w_parts;
  factors.x_stride = width;
  factors.x_scale = x_scale;
  factors.w_scale = w_scale;
}

void add_rounded(const Context& context, const ConvProblem& p, const TensorView& w, ConvFactors& factors) {
  const int64_t width = factors.lines * ConvFactors::kLine, taps = p.taps();
  factors.x = p.x.as<const uint16_t>();
  factors.x_stride = p.x.row_stride;
  if (p.x.dtype != factors.dtype || !has_lines(p.x, p.channels())) {
    factors.x_memory.emplace(context.pool, 2 * p.x.rows() * width);
    factors.x = factors.x_memory->as<uint16_t>();
    factors.x_stride = width;
    round_factors(context, rows_of(p.x, 1, factors.lines, factors.x_memory->as<uint16_t>()), p.x.dtype,
                  factors.dtype);
  }
  factors.w = w.as<const uint16_t>();
  if (w.dtype == factors.dtype && has_lines(w, p.channels())) return;
  factors.w_memory.emplace(context.pool, 2 * w.rows() * taps * width);
  factors.w = factors.w_memory->as<uint16_t>();
  round_factors(context, rows_of(w, taps, factors.lines, factors.w_memory->as<uint16_t>()), w.dtype,
                factors.dtype);
}

}  // namespace

ConvFactors conv_factors(const Context& context, const ConvProblem& p) {
  ConvFactors factors = {};
  factors.split = p.precision == Precision::kFp32;
  factors.dtype = p.precision == Precision::kBf16 ? DType::BF16 : DType::F16;
  factors.lines = ceil_div(p.channels(), factors.split ? kSplitChannels : ConvFactors::kLine);
  std::optional<Scratch> floats;
  const TensorView w = decoded(context, p.w, floats);
  if (factors.split)
    add_split(context, p, w, factors);
  else
    add_rounded(context, p, w, factors);
  return factors;
}

}  // namespace kotoba::cuda
