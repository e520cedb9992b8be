// Convolution weights from the order of files to the one of conv2d: out[n, tap, c] = w[n, c, tap].
#include "cpu_backend.h"
#include "thread_pool.h"

namespace kotoba::cpu {
namespace {

template <typename T>
void turn_row(T* out, const T* w, int64_t channels, int64_t taps) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tap = 0; tap < taps; ++tap) out[tap * channels + c] = w[c * taps + tap];
}

// For weights that keep their dtype: nothing but their size matters.
struct Bytes8 {
  std::byte bytes[8];
};
struct Bytes4 {
  std::byte bytes[4];
};
struct Bytes2 {
  std::byte bytes[2];
};

void turn_stored_row(std::byte* out, const std::byte* w, int64_t channels, int64_t taps, int size) {
  const auto turn = [&]<typename T>(T*) {
    turn_row(reinterpret_cast<T*>(out), reinterpret_cast<const T*>(w), channels, taps);
  };
  switch (size) {
    case 8:
      return turn(static_cast<Bytes8*>(nullptr));
    case 4:
      return turn(static_cast<Bytes4*>(nullptr));
    case 2:
      return turn(static_cast<Bytes2*>(nullptr));
    default:
      return turn(static_cast<std::byte*>(nullptr));
  }
}

}  // namespace

void CpuBackend::conv_weight(TensorView out, TensorView w, int64_t taps) {
  const int64_t channels = w.cols() / taps;
  context_.pool->run(context_.threads, w.rows(), [&](int64_t r) {
    if (interrupted()) return;
    if (out.dtype == w.dtype)
      return turn_stored_row(out.row_bytes(r), w.row_bytes(r), channels, taps, kotoba::info(w.dtype).bytes);
    auto* row =
        static_cast<float*>(scratch(Scratch::kThread, w.cols() * static_cast<int64_t>(sizeof(float))));
    kernels_.decode_row(w.dtype, w.row_bytes(r), row, w.cols());
    turn_row(out.row<float>(r), row, channels, taps);
  });
}

}  // namespace kotoba::cpu
