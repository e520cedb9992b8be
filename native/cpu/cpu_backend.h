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
  void embedding(TensorView out, TensorView table, TensorView ids, bool accumulate) override;
  void decode(TensorView out, TensorView x) override;
  void transpose(TensorView out, TensorView x) override;
  void require_finite(TensorView x, std::string where) override;

 private:
  const Kernels& kernels_;
  Context context_;
};

}  // namespace kotoba::cpu
