#include "runtime.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "failures.h"
#include "memory.h"

namespace kotoba::sim {

using Work = std::function<void()>;

// Tickets number all work in the order it was given, over all streams.
struct GraphState {
  std::vector<Work> work;
};
struct StreamState : std::enable_shared_from_this<StreamState> {
  struct Pending {
    uint64_t ticket;
    Work run;
  };
  std::deque<Pending> pending;
  std::unique_ptr<GraphState> capturing;
  bool capture_failed = false;      // by a call that a capture cannot hold
  cudaError_t error = cudaSuccess;  // of work that ran; the next wait reports it
};
struct EventState {
  std::shared_ptr<StreamState> stream;
  uint64_t ticket = 0;
  bool captured = false;  // recorded in a capture: it is of its graph only
};

namespace {

constexpr size_t kPileUp = 512;  // pieces of work that a stream may hold back

std::recursive_mutex mutex;  // one call at a time
std::map<StreamState*, std::shared_ptr<StreamState>> streams;
std::map<const char*, size_t> pinned;  // host memory by its start
std::atomic<uint64_t> next_ticket{1};
std::atomic<int64_t> pending_count{0};
thread_local cudaError_t last_error = cudaSuccess;

using Lock = std::lock_guard<std::recursive_mutex>;

void reclaim_memory() {
  uint64_t oldest = next_ticket;
  for (const auto& [_, stream] : streams)
    if (!stream->pending.empty()) oldest = std::min(oldest, stream->pending.front().ticket);
  memory().reclaim(oldest);
}

void drop_pending_but_one(StreamState& stream) {
  pending_count -= static_cast<int64_t>(stream.pending.size()) - 1;
  stream.pending.resize(1);
}

// Does the stream's work up to and including `ticket`. After a fault its other work is lost.
void run_through(StreamState& stream, uint64_t ticket) {
  while (!stream.pending.empty() && stream.pending.front().ticket <= ticket) {
    const Work work = std::move(stream.pending.front().run);
    try {
      if (lost() == cudaSuccess) work();
      if (lost() != cudaSuccess) drop_pending_but_one(stream);
    } catch (const Fault& fault) {
      set_fault(fault.what());
      stream.error = cudaErrorLaunchFailure;
      drop_pending_but_one(stream);
    }
    stream.pending.pop_front();
    --pending_count;
    reclaim_memory();
  }
}

cudaError_t take_error(StreamState& stream) {
  const cudaError_t error = std::exchange(stream.error, cudaSuccess);
  return lost() == cudaSuccess ? error : lost();
}

// A capture that meets `error` comes to nothing.
cudaError_t fail_capture(StreamState& stream, cudaError_t error) {
  stream.capture_failed = true;
  return error;
}

cudaError_t submit(StreamState& stream, Work work) {
  if (lost() != cudaSuccess) return lost();
  if (stream.capture_failed) return cudaErrorStreamCaptureInvalidated;
  if (stream.capturing) {
    stream.capturing->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream.pending.push_back({next_ticket++, std::move(work)});
  ++pending_count;
  if (stream.pending.size() > kPileUp) run_through(stream, stream.pending[kPileUp / 2].ticket);
  return cudaSuccess;
}

bool is_pinned(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  auto next = pinned.upper_bound(at);
  if (next == pinned.begin()) return false;
  --next;
  return at + bytes <= next->first + next->second;
}

// `rows` pieces of `width` bytes, each side with its own pitch.
struct Rows {
  char* to;
  size_t to_pitch;
  const char* from;
  size_t from_pitch, width, rows;

  void copy() const {
    for (size_t r = 0; r < rows; ++r) std::memmove(to + r * to_pitch, from + r * from_pitch, width);
  }
  size_t to_bytes() const { return rows ? (rows - 1) * to_pitch + width : 0; }
  size_t from_bytes() const { return rows ? (rows - 1) * from_pitch + width : 0; }
};

void require_device(const void* data, size_t bytes, const char* what) {
  if (!memory().holds(data, bytes))
    throw Fault(std::string("cudaMemcpyAsync: ") + what + ": " + std::to_string(bytes) + " bytes at " +
                memory().describe(data));
}

void checked_copy(const Rows& rows, cudaMemcpyKind kind) {
  if (kind != cudaMemcpyDeviceToHost) require_device(rows.to, rows.to_bytes(), "target");
  if (kind != cudaMemcpyHostToDevice) require_device(rows.from, rows.from_bytes(), "source");
  rows.copy();
}

// As on a GPU: pageable host memory is read before the call returns and written before it returns; pinned
// memory is touched when the stream gets there.
cudaError_t submit_copy(StreamState& stream, Rows rows, cudaMemcpyKind kind) {
  if (rows.width == 0 || rows.rows == 0) return cudaSuccess;
  if (kind == cudaMemcpyHostToDevice && !is_pinned(rows.from, rows.from_bytes())) {
    if (stream.capturing) return fail_capture(stream, cudaErrorStreamCaptureUnsupported);
    auto staged = std::make_shared<std::vector<char>>(rows.from, rows.from + rows.from_bytes());
    rows.from = staged->data();
    return submit(stream, [rows, kind, staged] { checked_copy(rows, kind); });
  }
  const bool waits = kind == cudaMemcpyDeviceToHost && !is_pinned(rows.to, rows.to_bytes());
  if (waits && stream.capturing) return fail_capture(stream, cudaErrorStreamCaptureUnsupported);
  const cudaError_t error = submit(stream, [rows, kind] { checked_copy(rows, kind); });
  if (error != cudaSuccess || !waits) return error;
  run_through(stream, UINT64_MAX);
  return take_error(stream);
}

}  // namespace

void launch(cudaStream_t stream, const LaunchShape& shape, std::function<void()> kernel) {
  const Lock lock(mutex);
  const uint64_t threads = uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  const bool fits = threads >= 1 && threads <= 1024 && shape.grid.x >= 1 && shape.grid.x <= 0x7fffffffu &&
                    shape.grid.y >= 1 && shape.grid.y <= 65535 && shape.grid.z >= 1 && shape.grid.z <= 65535;
  if (!fits) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  last_error = has_kernels() ? submit(*stream,
                                      [shape, kernel = std::move(kernel)] {
                                        count_launch();
                                        run_grid(shape, kernel);
                                      })
                             : cudaErrorNoKernelImageForDevice;
}

}  // namespace kotoba::sim

using namespace kotoba::sim;

cudaError_t cudaGetLastError() {
  const cudaError_t error = std::exchange(last_error, cudaSuccess);
  return error == cudaSuccess ? lost() : error;
}

// Where memory is short, what was freed before is waited for, as cudaFree does on a GPU.
cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (lost() != cudaSuccess) return lost();
  *data = memory().allocate(bytes);
  if (*data) return cudaSuccess;
  const Lock lock(mutex);
  for (const auto& [_, stream] : streams) run_through(*stream, UINT64_MAX);
  *data = memory().allocate(bytes);
  return *data ? cudaSuccess : cudaErrorMemoryAllocation;
}

// The memory goes when the work that was given before has run; a GPU would have waited for it here.
cudaError_t cudaFree(void* data) {
  if (!data) return cudaSuccess;
  if (!memory().free(data, next_ticket)) return cudaErrorInvalidValue;
  if (pending_count == 0) memory().reclaim(next_ticket);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = card_memory();
  *free = *total - memory().used();
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  if (lost() != cudaSuccess) return lost();
  const Lock lock(mutex);
  *data = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*data) return cudaErrorMemoryAllocation;
  pinned[static_cast<const char*>(*data)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  const Lock lock(mutex);
  pinned.erase(static_cast<const char*>(data));
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (lost() != cudaSuccess) return lost();
  const Lock lock(mutex);
  auto state = std::make_shared<StreamState>();
  *stream = state.get();
  streams[*stream] = std::move(state);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(mutex);
  run_through(*stream, UINT64_MAX);
  streams.erase(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(mutex);
  if (stream->capturing) return fail_capture(*stream, cudaErrorStreamCaptureUnsupported);
  run_through(*stream, UINT64_MAX);
  return take_error(*stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex);
  if (!event->stream) return cudaSuccess;  // never recorded
  if (event->captured != (stream->capturing != nullptr))
    return fail_capture(*stream, cudaErrorStreamCaptureIsolation);
  if (event->captured) return cudaSuccess;  // of the same stream, which is ordered
  return submit(*stream, [other = event->stream, ticket = event->ticket] { run_through(*other, ticket); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = new EventState, cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex);
  event->stream = stream->shared_from_this();
  event->ticket = next_ticket - 1;
  event->captured = stream->capturing != nullptr;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex);
  if (!event->stream) return cudaSuccess;
  if (event->captured) return cudaErrorCapturedEvent;
  run_through(*event->stream, event->ticket);
  return take_error(*event->stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(mutex);
  const Rows rows{
      static_cast<char*>(to), to_pitch, static_cast<const char*>(from), from_pitch, width, height};
  return submit_copy(*stream, rows, kind);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex);
  return submit(*stream, [=] {
    require_device(data, bytes, "target of cudaMemsetAsync");
    std::memset(data, value, bytes);
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(mutex);
  if (stream->capturing) return cudaErrorInvalidValue;
  if (lost() != cudaSuccess) return lost();
  stream->capturing = std::make_unique<GraphState>();
  stream->capture_failed = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(mutex);
  *graph = nullptr;
  if (!stream->capturing) return cudaErrorInvalidValue;
  const std::unique_ptr<GraphState> captured = std::move(stream->capturing);
  if (std::exchange(stream->capture_failed, false)) return cudaErrorStreamCaptureInvalidated;
  *graph = new GraphState(*captured);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return *exec = new GraphState(*graph), cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(mutex);
  for (const Work& work : exec->work) submit(*stream, work);
  return lost();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
