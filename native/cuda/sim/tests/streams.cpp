// Asynchronous work happens as late as it may: what forgets to wait must not find it done.
#include "testing.h"

namespace kotoba::sim {
namespace {

using testing::DeviceArray;
using testing::expect;

void add_one(float* x) { x[0] += 1; }

// Pinned host memory for one float.
struct Pinned {
  float* value = nullptr;
  Pinned() {
    void* data = nullptr;
    cuda::check(cudaHostAlloc(&data, sizeof(float), cudaHostAllocDefault), "cudaHostAlloc");
    value = static_cast<float*>(data);
    *value = 0;
  }
  ~Pinned() { cudaFreeHost(value); }
};

SIM_TEST(a_copy_to_pinned_memory_is_not_there_before_a_wait) {
  const cuda::Stream stream;
  const DeviceArray<float> x({5});
  const Pinned host;
  cudaMemcpyAsync(host.value, x.get(), sizeof(float), cudaMemcpyDeviceToHost, stream.get());
  expect(*host.value == 0, "the host to read what was there before");
  stream.wait();
  expect(*host.value == 5, "the copy after a wait");
}

SIM_TEST(pinned_memory_must_stay_until_its_copy_is_done) {
  const cuda::Stream stream;
  const DeviceArray<float> x({0});
  const Pinned host;
  *host.value = 1;
  cudaMemcpyAsync(x.get(), host.value, sizeof(float), cudaMemcpyHostToDevice, stream.get());
  *host.value = 2;  // the bug
  expect(x.back(stream)[0] == 2, "the copy to take what is there when it runs");
}

SIM_TEST(pageable_memory_may_be_reused_at_once) {
  const cuda::Stream stream;
  const DeviceArray<float> x({0});
  float value = 1;
  cudaMemcpyAsync(x.get(), &value, sizeof(float), cudaMemcpyHostToDevice, stream.get());
  value = 2;
  expect(x.back(stream)[0] == 1, "the value of the call");
}

SIM_TEST(streams_are_ordered_by_events_only) {
  const cuda::Stream first, second;
  const DeviceArray<float> x({0}), y({0});
  const Pinned seen;
  cuda::launch(first, {"add", 1, 1}, add_one, x.get());
  const cuda::Event done;
  first.record(done);
  cudaMemcpyAsync(seen.value, x.get(), sizeof(float), cudaMemcpyDeviceToHost, second.get());
  second.wait();
  expect(*seen.value == 0, "the other stream not to see work it did not wait for");
  cudaStreamWaitEvent(second.get(), done.get(), 0);
  cudaMemcpyAsync(seen.value, x.get(), sizeof(float), cudaMemcpyDeviceToHost, second.get());
  second.wait();
  expect(*seen.value == 1, "the event to order them");
}

SIM_TEST(a_graph_runs_what_was_captured_again) {
  const cuda::Stream stream;
  const DeviceArray<float> x({0});
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cuda::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed), "capture");
  cuda::launch(stream, {"add", 1, 1}, add_one, x.get());
  cuda::check(cudaStreamEndCapture(stream.get(), &graph), "capture");
  expect(x.back(stream)[0] == 0, "a capture to run nothing");
  cuda::check(cudaGraphInstantiate(&exec, graph, 0), "graph");
  for (int i = 0; i < 3; ++i) cuda::check(cudaGraphLaunch(exec, stream.get()), "graph");
  expect(x.back(stream)[0] == 3, "three launches to run it three times");
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

// What a GPU does not allow while a capture runs: the call fails, and the capture comes to nothing.
void expect_no_graph(const char* what, cudaError_t error, cudaError_t (*call)(const cuda::Stream&)) {
  const cuda::Stream stream;
  cuda::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed), "capture");
  expect(call(stream) == error, std::string(what) + " to fail");
  cudaGraph_t graph = nullptr;
  expect(cudaStreamEndCapture(stream.get(), &graph) == cudaErrorStreamCaptureInvalidated && !graph,
         std::string("no graph after ") + what);
  stream.wait();  // and the stream to work as before
}

SIM_TEST(what_a_capture_cannot_hold_ends_it) {
  expect_no_graph("a wait", cudaErrorStreamCaptureUnsupported,
                  [](const cuda::Stream& stream) { return cudaStreamSynchronize(stream.get()); });
  expect_no_graph(
      "a copy of pageable memory", cudaErrorStreamCaptureUnsupported, [](const cuda::Stream& stream) {
        const DeviceArray<float> x({0});
        float value = 1;
        return cudaMemcpyAsync(x.get(), &value, sizeof value, cudaMemcpyHostToDevice, stream.get());
      });
  expect_no_graph("a wait for another stream", cudaErrorStreamCaptureIsolation,
                  [](const cuda::Stream& stream) {
                    const cuda::Stream other;
                    const cuda::Event event;
                    other.record(event);
                    return cudaStreamWaitEvent(stream.get(), event.get(), 0);
                  });
}

SIM_TEST(an_event_of_a_capture_cannot_be_waited_for) {
  const cuda::Stream stream, other;
  const cuda::Event event;
  cudaGraph_t graph = nullptr;
  cuda::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed), "capture");
  stream.record(event);
  expect(cudaEventSynchronize(event.get()) == cudaErrorCapturedEvent, "a wait to fail");
  expect(cudaStreamWaitEvent(other.get(), event.get(), 0) != cudaSuccess, "another stream's wait to fail");
  cuda::check(cudaStreamEndCapture(stream.get(), &graph), "capture");
  cudaGraphDestroy(graph);
}

SIM_TEST(a_launch_of_a_bad_shape_fails_at_once) {
  const cuda::Stream stream;
  const DeviceArray<float> x({0});
  bool failed = false;
  try {
    cuda::launch(stream, {"add", 1, 1025}, add_one, x.get());
  } catch (const Error& error) {
    failed = std::string(error.what()).find("add: cudaErrorInvalidConfiguration") != std::string::npos;
  }
  expect(failed, "an error that names the kernel");
}

}  // namespace
}  // namespace kotoba::sim
