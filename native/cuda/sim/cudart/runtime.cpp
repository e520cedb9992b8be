#include "runtime.h"

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "../memory.h"
#include "card.h"

using namespace kotoba::sim;

struct SimGraph {
  std::vector<Work> work;
  bool broken = false;  // by a call that a capture cannot hold
};
// Tickets number all work in the order it was given, over all streams.
struct SimStream {
  struct Piece {
    uint64_t ticket;
    Work run;
  };
  std::deque<Piece> pending;
  std::unique_ptr<SimGraph> capture;  // what it records instead of running it
  std::optional<std::string> fault;   // of work that ran; the next wait reports it
};
struct SimEvent {
  cudaStream_t stream = nullptr;
  uint64_t ticket = 0;
  bool captured = false;  // recorded in a capture: it is of its graph only
};

namespace {

constexpr size_t kPileUp = 512;  // pieces of work that a stream may hold back
constexpr uint64_t kEverything = UINT64_MAX;

std::recursive_mutex mutex;  // one call at a time
using Lock = std::lock_guard<std::recursive_mutex>;
std::map<cudaStream_t, std::unique_ptr<SimStream>> streams;
std::atomic<uint64_t> next_ticket{1};
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_fault;  // what the last cudaErrorLaunchFailure was

cudaError_t lost_or(cudaError_t error) { return is_lost() ? cudaErrorIllegalAddress : error; }

void reclaim_memory() {
  uint64_t oldest = next_ticket;
  for (const auto& [_, stream] : streams)
    if (!stream->pending.empty()) oldest = std::min(oldest, stream->pending.front().ticket);
  memory().reclaim(oldest);
  pinned_memory().reclaim(oldest);
}

// Does the stream's work up to and including `ticket`. After a fault its other work is lost.
void run_through(SimStream& stream, uint64_t ticket) {
  while (!stream.pending.empty() && stream.pending.front().ticket <= ticket) {
    const Work work = std::move(stream.pending.front().run);
    bool failed = is_lost();
    try {
      if (!failed) work();
    } catch (const Fault& fault) {
      stream.fault = fault.what();
      failed = true;
    }
    if (failed || is_lost())
      stream.pending.clear();
    else
      stream.pending.pop_front();
    reclaim_memory();
  }
}

cudaError_t take_error(SimStream& stream) {
  const auto fault = std::exchange(stream.fault, std::nullopt);
  if (fault) last_fault = *fault;
  return lost_or(fault ? cudaErrorLaunchFailure : cudaSuccess);
}

// The memory goes when the work that was given before has run; a GPU would have waited for it here.
cudaError_t free_later(Memory& memory, void* data) {
  if (!data) return cudaSuccess;
  if (!memory.free(data, next_ticket)) return cudaErrorInvalidValue;
  const std::unique_lock lock(mutex, std::try_to_lock);
  if (lock) reclaim_memory();  // else whoever runs work now does it
  return cudaSuccess;
}

// A capture that meets `error` comes to nothing.
cudaError_t refuse(SimStream& stream, cudaError_t error) {
  if (stream.capture) stream.capture->broken = true;
  return error;
}

cudaError_t submit(SimStream& stream, Work work) {
  if (is_lost()) return cudaErrorIllegalAddress;
  if (stream.capture) {
    stream.capture->work.push_back(std::move(work));
    return stream.capture->broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
  }
  stream.pending.push_back({next_ticket++, std::move(work)});
  if (stream.pending.size() > kPileUp) run_through(stream, stream.pending[kPileUp / 2].ticket);
  return cudaSuccess;
}

void require_device(const void* data, size_t bytes, const char* what) {
  if (!memory().holds(data, bytes))
    throw Fault(std::string(what) + ": " + std::to_string(bytes) + " bytes at " + memory().describe(data));
}

}  // namespace

void kotoba::sim::launch(cudaStream_t stream, const LaunchShape& shape, Work kernel) {
  const Lock lock(mutex);
  if (shape.blocks < 1 || shape.threads < 1 || shape.threads > 1024)
    last_error = cudaErrorInvalidConfiguration;
  else if (!has_kernels())
    last_error = cudaErrorNoKernelImageForDevice;
  else
    last_error = submit(*stream, [shape, kernel = std::move(kernel)] {
      count_launch();
      run_grid(shape, kernel);
    });
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define X(name, number) \
  case name:            \
    return #name;
    KOTOBA_CUDA_ERRORS(X)
#undef X
  }
  return "an error without a name";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? last_fault.c_str() : cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = std::exchange(last_error, cudaSuccess);
  return error == cudaSuccess ? lost_or(cudaSuccess) : error;
}

// ---- memory

// Where memory is short, what was freed before is waited for, as cudaFree does on a GPU.
cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (is_lost()) return cudaErrorIllegalAddress;
  *data = memory().allocate(bytes);
  if (*data) return cudaSuccess;
  const Lock lock(mutex);
  for (const auto& [_, stream] : streams) run_through(*stream, kEverything);
  *data = memory().allocate(bytes);
  return *data ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = card_memory();
  *free = *total - memory().used();
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  if (is_lost()) return cudaErrorIllegalAddress;
  *data = pinned_memory().allocate(bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* data) { return free_later(memory(), data); }
cudaError_t cudaFreeHost(void* data) { return free_later(pinned_memory(), data); }

// As on a GPU: pageable host memory is read before the call returns and written before it returns; pinned
// memory is touched when the stream gets there.
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(mutex);
  if (width == 0 || height == 0) return cudaSuccess;
  const size_t to_bytes = (height - 1) * to_pitch + width, from_bytes = (height - 1) * from_pitch + width;
  const bool uploads = kind == cudaMemcpyHostToDevice;
  const bool pageable =
      uploads ? !pinned_memory().holds(from, from_bytes) : !pinned_memory().holds(to, to_bytes);
  if (pageable && stream->capture) return refuse(*stream, cudaErrorStreamCaptureUnsupported);
  std::vector<char> staged;
  const char* first = static_cast<const char*>(from);
  if (pageable && uploads) staged.assign(first, first + from_bytes);
  const cudaError_t error = submit(*stream, [=, staged = std::move(staged)] {
    uploads ? require_device(to, to_bytes, "cudaMemcpyAsync: target")
            : require_device(from, from_bytes, "cudaMemcpyAsync: source");
    const char* source = staged.empty() ? first : staged.data();
    for (size_t r = 0; r < height; ++r)
      std::memcpy(static_cast<char*>(to) + r * to_pitch, source + r * from_pitch, width);
  });
  return error == cudaSuccess && pageable && !uploads ? cudaStreamSynchronize(stream) : error;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex);
  return submit(*stream, [=] {
    require_device(data, bytes, "cudaMemsetAsync");
    std::memset(data, value, bytes);
  });
}

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (is_lost()) return cudaErrorIllegalAddress;
  const Lock lock(mutex);
  *stream = new SimStream;
  streams[*stream].reset(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(mutex);
  run_through(*stream, kEverything);
  streams.erase(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(mutex);
  if (stream->capture) return refuse(*stream, cudaErrorStreamCaptureUnsupported);
  run_through(*stream, kEverything);
  return take_error(*stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex);
  if (!event->stream) return cudaSuccess;  // never recorded
  if (event->captured != (stream->capture != nullptr))
    return refuse(*stream, cudaErrorStreamCaptureIsolation);
  if (event->captured) return cudaSuccess;  // of the same stream, which is ordered
  return submit(*stream, [other = event->stream, ticket = event->ticket] {
    if (streams.contains(other)) run_through(*other, ticket);
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new SimEvent;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex);
  *event = {stream, next_ticket - 1, stream->capture != nullptr};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex);
  if (event->captured) return cudaErrorCapturedEvent;
  if (!streams.contains(event->stream)) return cudaSuccess;  // never recorded, or all done
  run_through(*event->stream, event->ticket);
  return take_error(*event->stream);
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(mutex);
  if (is_lost()) return cudaErrorIllegalAddress;
  if (stream->capture) return cudaErrorInvalidValue;
  stream->capture = std::make_unique<SimGraph>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(mutex);
  *graph = nullptr;
  if (!stream->capture) return cudaErrorInvalidValue;
  const auto captured = std::move(stream->capture);
  if (captured->broken) return cudaErrorStreamCaptureInvalidated;
  *graph = new SimGraph(*captured);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new SimGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(mutex);
  for (const Work& work : exec->work) submit(*stream, work);
  return lost_or(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
