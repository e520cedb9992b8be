// What a Device, its Tensors and its queued work share.
#pragma once

#include <memory>

#include "backend.h"
#include "buffer_pool.h"
#include "command_queue.h"

namespace kotoba::bindings {

struct DeviceState {
  std::shared_ptr<Backend> backend;
  BufferPool pool;
  std::unique_ptr<CommandQueue> queue;

  explicit DeviceState(std::shared_ptr<Backend> b) : backend(b), pool(std::move(b)) {}
};

// Pool memory as long as JS handles (a tensor and its views) refer to it. Queued commands hold only the
// block: the pool is stream-ordered, so the memory may be handed out again while they wait.
struct Allocation {
  std::shared_ptr<DeviceState> state;
  BlockPtr block;
  bool pooled;

  Allocation(std::shared_ptr<DeviceState> s, BlockPtr b, bool p)
      : state(std::move(s)), block(std::move(b)), pooled(p) {}
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;
  ~Allocation() {
    if (pooled && !state->queue->closed()) state->pool.release(std::move(block));
  }
};

}  // namespace kotoba::bindings
