// Copies between the host's memory and the device through two pinned buffers, so that one is filled while the
// other travels. The host's memory may be reused as soon as a copy returns.
#pragma once

#include "../tensor_view.h"
#include "stream.h"

namespace kotoba::cuda {

class Staging {
 public:
  static constexpr int64_t kBytes = int64_t{8} << 20;  // of one buffer

  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Returns when everything has left `host`, not when it has arrived.
  void upload(const Stream& stream, TensorView out, const std::byte* host);
  // Returns when everything has arrived in `host`.
  void download(const Stream& stream, std::byte* host, TensorView x);

 private:
  struct Buffer {
    std::byte* data = nullptr;  // made when first used
    Event done;                 // of the last copy from or to it
  };
  Buffer& ready_buffer();

  Buffer buffers_[2];
  int next_ = 0;
};

}  // namespace kotoba::cuda
