#include "cpu_backend.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

#include "../errors.h"
#include "../mapped_file.h"
#include "../sanitizer.h"
#include "thread_pool.h"

namespace kotoba::cpu {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "CPU";
}

// Copies rows between a strided view and dense host memory.
template <typename Copy>
void for_rows(const TensorView& x, Copy copy) {
  const int64_t row = dtype_bytes(x.dtype, x.cols());
  if (x.dense()) return copy(0, x.data, row * x.rows());
  for (int64_t r = 0; r < x.rows(); ++r) copy(r * row, x.row_bytes(r), row);
}

}  // namespace

CpuBackend::CpuBackend(int threads, std::string_view instructions)
    : kernels_(instructions.empty() ? kernels() : kernels(instructions)),
      context_{&ThreadPool::instance(), threads, &interrupted_} {
  require(threads >= 0 && threads <= 1024, "device: threads must be 0 to 1024, got ", threads);
  if (threads == 0) context_.threads = ThreadPool::default_threads();
}

DeviceInfo CpuBackend::info() const {
  struct sysinfo system;
  const int64_t memory = sysinfo(&system) == 0 ? int64_t(system.totalram) * system.mem_unit : 0;
  return {"cpu", cpu_name(), kernels_.isa, context_.threads, memory};
}

std::byte* CpuBackend::allocate(int64_t bytes) {
  const bool large = bytes >= 2 * kHugePage;
  void* data = nullptr;
  if (posix_memalign(&data, large ? kHugePage : 64, static_cast<size_t>(bytes)) != 0)
    throw Error("ERR_OUT_OF_MEMORY", detail::join("cpu: cannot allocate ", bytes, " bytes"));
  if (large) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a hint
  return static_cast<std::byte*>(data);
}

void CpuBackend::release(std::byte* data, int64_t) noexcept { free(data); }

BlockPtr CpuBackend::adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) {
  std::byte* data = file->data() + offset;
  if (kAddressSanitizer && bytes > 0) {
    auto copy = std::make_shared<std::vector<std::byte>>(data, data + bytes);
    return std::make_shared<Block>(copy->data(), bytes, [copy] {});
  }
  return std::make_shared<Block>(data, bytes, [file = std::move(file)] {});
}

void CpuBackend::upload(TensorView out, const std::byte* host) {
  for_rows(out,
           [&](int64_t offset, std::byte* row, int64_t bytes) { std::memcpy(row, host + offset, bytes); });
}

void CpuBackend::download(std::byte* host, TensorView x) {
  for_rows(x, [&](int64_t offset, std::byte* row, int64_t bytes) { std::memcpy(host + offset, row, bytes); });
}

void CpuBackend::linear(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Precision precision) {
  kernels_.linear(context_, out, x, w, epilogue, precision);
}

void CpuBackend::attention(TensorView out, TensorView q, TensorView k, TensorView v, Attention how) {
  kernels_.attention(context_, out, q, k, v, how);
}

void CpuBackend::rms_norm(TensorView out, TensorView x, TensorView weight, float eps) {
  kernels_.rms_norm(context_, out, x, weight, eps);
}

void CpuBackend::layer_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, float eps) {
  kernels_.layer_norm(context_, out, x, weight, bias, eps);
}

void CpuBackend::layer_norm_modulated(TensorView out, TensorView x, TensorView shift, TensorView scale,
                                      float eps) {
  kernels_.layer_norm_modulated(context_, out, x, shift, scale, eps);
}

void CpuBackend::head_norm_rope(TensorView out, TensorView x, TensorView weight, TensorView rotation,
                                HeadNormRope how) {
  kernels_.head_norm_rope(context_, out, x, weight, rotation, how);
}

void CpuBackend::activate(TensorView out, TensorView x, Activation activation) {
  kernels_.activate(context_, out, x, activation);
}

void CpuBackend::combine(TensorView out, Terms terms) { kernels_.combine(context_, out, terms); }

void CpuBackend::conv2d(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Conv2d how,
                        Precision precision) {
  kernels_.conv2d(context_, out, x, w, epilogue, how, precision);
}

void CpuBackend::group_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, GroupNorm how) {
  kernels_.group_norm(context_, out, x, weight, bias, how);
}

}  // namespace kotoba::cpu
