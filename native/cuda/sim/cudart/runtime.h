// The part of the CUDA runtime that native/cuda uses, simulated: memory, streams, events, graphs. Work given
// to a stream runs only when somebody waits for it, or when much of it has piled up, so that a host program
// that forgets to wait sees what was there before.
#pragma once

#include <cstddef>

#include "../language.h"
#include "../warp.h"

// Numbers as in CUDA.
#define KOTOBA_CUDA_ERRORS(X)               \
  X(cudaSuccess, 0)                         \
  X(cudaErrorInvalidValue, 1)               \
  X(cudaErrorMemoryAllocation, 2)           \
  X(cudaErrorInvalidConfiguration, 9)       \
  X(cudaErrorInsufficientDriver, 35)        \
  X(cudaErrorDevicesUnavailable, 46)        \
  X(cudaErrorNoDevice, 100)                 \
  X(cudaErrorInvalidDevice, 101)            \
  X(cudaErrorNoKernelImageForDevice, 209)   \
  X(cudaErrorECCUncorrectable, 214)         \
  X(cudaErrorNvlinkUncorrectable, 220)      \
  X(cudaErrorContained, 226)                \
  X(cudaErrorIllegalAddress, 700)           \
  X(cudaErrorLaunchTimeout, 702)            \
  X(cudaErrorContextIsDestroyed, 709)       \
  X(cudaErrorAssert, 710)                   \
  X(cudaErrorHardwareStackError, 714)       \
  X(cudaErrorIllegalInstruction, 715)       \
  X(cudaErrorMisalignedAddress, 716)        \
  X(cudaErrorInvalidAddressSpace, 717)      \
  X(cudaErrorInvalidPc, 718)                \
  X(cudaErrorLaunchFailure, 719)            \
  X(cudaErrorSystemDriverMismatch, 803)     \
  X(cudaErrorStreamCaptureUnsupported, 900) \
  X(cudaErrorStreamCaptureInvalidated, 901) \
  X(cudaErrorStreamCaptureIsolation, 905)   \
  X(cudaErrorCapturedEvent, 907)            \
  X(cudaErrorUnknown, 999)

enum cudaError_t {
#define X(name, number) name = number,
  KOTOBA_CUDA_ERRORS(X)
#undef X
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0;

using cudaStream_t = struct SimStream*;
using cudaEvent_t = struct SimEvent*;
using cudaGraph_t = struct SimGraph*;
using cudaGraphExec_t = struct SimGraph*;

struct cudaDeviceProp {
  char name[256];
  int major, minor;
  int multiProcessorCount;
  size_t totalGlobalMem;          // bytes
  size_t sharedMemPerBlockOptin;  // bytes
};

const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);  // of a kernel's fault: what it did
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);

cudaError_t cudaMalloc(void** data, size_t bytes);
cudaError_t cudaFree(void* data);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* data);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace kotoba::sim {
// What `kernel<<<shape>>>(…)` does: errors of the shape are cudaGetLastError's, faults those of the next
// wait.
void launch(cudaStream_t stream, const LaunchShape& shape, Work kernel);
}  // namespace kotoba::sim
