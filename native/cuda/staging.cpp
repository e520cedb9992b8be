#include "staging.h"

#include <algorithm>
#include <cstring>

namespace kotoba::cuda {
namespace {

// Pieces of at most kBytes: rows [first, first + rows) or, of a longer row, bytes [offset, offset + width).
struct Piece {
  std::byte* device;
  int64_t device_pitch, width, rows;
  int64_t host_offset;
};

template <typename Move>
void for_pieces(const TensorView& x, Move move) {
  const int64_t row = dtype_bytes(x.dtype, x.cols()), pitch = dtype_bytes(x.dtype, x.row_stride);
  if (row == 0) return;
  if (x.dense()) {
    const int64_t all = row * x.rows();
    for (int64_t at = 0; at < all; at += Staging::kBytes) {
      const int64_t width = std::min(Staging::kBytes, all - at);
      move(Piece{x.data + at, width, width, 1, at});
    }
    return;
  }
  const int64_t rows = std::max<int64_t>(1, Staging::kBytes / row);
  for (int64_t r = 0; r < x.rows(); r += rows)
    for (int64_t at = 0; at < row; at += Staging::kBytes)
      move(Piece{x.data + r * pitch + at, pitch, std::min(Staging::kBytes, row - at),
                 std::min(rows, x.rows() - r), r * row + at});
}

}  // namespace

Staging::~Staging() {
  for (const Buffer& buffer : buffers_) cudaFreeHost(buffer.data);
}

Staging::Buffer& Staging::ready_buffer() {
  Buffer& buffer = buffers_[next_];
  next_ = 1 - next_;
  if (!buffer.data) {
    void* data = nullptr;
    check(cudaHostAlloc(&data, kBytes, cudaHostAllocDefault), "allocating pinned host memory");
    buffer.data = static_cast<std::byte*>(data);
  }
  buffer.done.wait();
  return buffer;
}

void Staging::upload(const Stream& stream, TensorView out, const std::byte* host) {
  for_pieces(out, [&](const Piece& p) {
    Buffer& buffer = ready_buffer();
    std::memcpy(buffer.data, host + p.host_offset, static_cast<size_t>(p.width * p.rows));
    check(cudaMemcpy2DAsync(p.device, static_cast<size_t>(p.device_pitch), buffer.data,
                            static_cast<size_t>(p.width), static_cast<size_t>(p.width),
                            static_cast<size_t>(p.rows), cudaMemcpyHostToDevice, stream.get()),
          "copying to the device");
    stream.record(buffer.done);
  });
}

void Staging::download(const Stream& stream, std::byte* host, TensorView x) {
  struct Pending {
    Buffer* buffer = nullptr;
    int64_t offset = 0, bytes = 0;
  } pending;
  const auto arrive = [&] {
    if (!pending.buffer) return;
    pending.buffer->done.wait();
    std::memcpy(host + pending.offset, pending.buffer->data, static_cast<size_t>(pending.bytes));
  };
  for_pieces(x, [&](const Piece& p) {
    Buffer& buffer = ready_buffer();
    check(cudaMemcpy2DAsync(buffer.data, static_cast<size_t>(p.width), p.device,
                            static_cast<size_t>(p.device_pitch), static_cast<size_t>(p.width),
                            static_cast<size_t>(p.rows), cudaMemcpyDeviceToHost, stream.get()),
          "copying from the device");
    stream.record(buffer.done);
    arrive();
    pending = {&buffer, p.host_offset, p.width * p.rows};
  });
  arrive();
}

}  // namespace kotoba::cuda
