// The CPU device: ops on SIMD kernels and the thread pool. Weights alias the mapped file.
#pragma once

#include "../backend.h"
#include "kernels.h"

namespace kotoba::cpu {

class CpuBackend final : public Backend {
 public:
  // threads 0: KOTOBA_THREADS, else every core this process may use. instructions "": KOTOBA_ISA, else the
  // best.
  CpuBackend(int threads, std::string_view instructions);

  DeviceInfo info() const override;
  std::byte* allocate(int64_t bytes) override;
  void release(std::byte* data, int64_t bytes) noexcept override;
  BlockPtr adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) override;
  void upload(TensorView out, const std::byte* host) override;
  void download(std::byte* host, TensorView x) override;

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
  void quantize(TensorView out, TensorView x) override;
  void transpose(TensorView out, TensorView x) override;
  void require_finite(TensorView x, std::string where) override;

 private:
  const Kernels& kernels_;
  Context context_;
};

}  // namespace kotoba::cpu
