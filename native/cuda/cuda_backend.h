// The CUDA device (and its simulation): ops on our own kernels, one stream, in order. Weights are copied from
// their mapped files in the background and stay if they fit (weight_store.h). Precision::kInt8 runs as kFp32:
// it is the CPU's speed mode.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <tuple>

#include "../backend.h"
#include "graphs.h"
#include "report.h"
#include "staging.h"
#include "weight_store.h"

namespace kotoba::cuda {

class CudaBackend final : public Backend {
 public:
  // index: of the GPU, from 0. memory: bytes it may take of the GPU's, 0: as many as it should. ERR_DEVICE
  // says what is missing and what to do.
  explicit CudaBackend(int index, int64_t memory);
  ~CudaBackend() override;

  DeviceInfo info() const override;
  DeviceUse use() const override;
  bool takes_16_bit() const override { return true; }
  std::byte* allocate(int64_t bytes) override;
  void release(std::byte* data, int64_t bytes) noexcept override;
  bool watches_memory() const override;
  BlockPtr adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) override;
  void upload(TensorView out, const std::byte* host) override;
  void download(std::byte* host, TensorView x) override;
  void finish() override;
  void replay(Recording& recording) override;

  void linear(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Precision precision) override;
  void attention(TensorView out, TensorView q, TensorView k, TensorView v, Attention how) override;
  void rms_norm(TensorView out, TensorView x, TensorView weight, float eps) override;
  void layer_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, float eps) override;
  void layer_norm_modulated(TensorView out, TensorView x, TensorView shift, TensorView scale,
                            float eps) override;
  void head_norm_rope(TensorView out, TensorView x, TensorView weight, TensorView rotation,
                      HeadNormRope how) override;
  void copy_tokens(TensorView out, TensorView x, CopyTokens how) override;
  void activate(TensorView out, TensorView x, Activation activation) override;
  void combine(TensorView out, Terms terms) override;
  void conv2d(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Conv2d how,
              Precision precision) override;
  void conv_weight(TensorView out, TensorView w, int64_t taps) override;
  void group_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, GroupNorm how) override;
  void patchify(TensorView out, TensorView x, Patches how) override;
  void unpatchify(TensorView out, TensorView x, Patches how) override;
  void embedding(TensorView out, TensorView table, TensorView ids, bool accumulate) override;
  void decode(TensorView out, TensorView x) override;
  void transpose(TensorView out, TensorView x) override;
  void require_finite(TensorView x, std::string where) override;

 private:
  // Before every op: this thread's device is ours, the GPU is not too far behind, and the views of weights
  // point to where those are.
  const Context& begin(std::initializer_list<TensorView*> reads);
  void hold_back();
  const int32_t* distance_buckets(const Attention& how);
  void embed_from_file(TensorView out, TensorView table, const std::byte* rows, TensorView ids,
                       bool accumulate);

  static constexpr int kMarks = 2,
                       kOpsToMark = 64;  // ops that may be under way: what a cancel has to wait for

  const int index_;
  const cudaDeviceProp properties_;
  std::shared_ptr<MemoryPool> pool_;  // blocks that outlive the device keep it
  std::unique_ptr<WeightForms> forms_;
  std::unique_ptr<Stream> stream_;
  std::shared_ptr<WeightStore> weights_;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Report> report_;
  std::unique_ptr<Graphs> graphs_;
  Staging staging_;
  Event marks_[kMarks];
  int64_t ops_ = 0, next_mark_ = 0;
  // By buckets, bidirectional, max_distance: the bucket of every distance, on the device.
  std::map<std::tuple<int64_t, bool, int64_t>, std::unique_ptr<Scratch>> buckets_;
};

}  // namespace kotoba::cuda
