// Owned streams and events.
#pragma once

#include <utility>

#include "status.h"

namespace kotoba::cuda {

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void wait() const { check(cudaEventSynchronize(event_), "waiting for the GPU"); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void record(const Event& event) const {
    check(cudaEventRecord(event.get(), stream_), "recording an event");
  }
  // What comes later on this stream runs after what was recorded on another one.
  void wait_for(const Event& event) const {
    check(cudaStreamWaitEvent(stream_, event.get(), 0), "ordering two streams");
  }
  void wait() const { check(cudaStreamSynchronize(stream_), "running the queued work"); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace kotoba::cuda
