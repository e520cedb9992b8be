#include "cuda_backend.h"

#include <cstdlib>
#include <vector>

#include "../relative_position.h"
#include "ops.h"

namespace kotoba::cuda {
namespace {

constexpr int kOldestArch = 80;

// Throws unless GPU `index` can run our kernels.
cudaDeviceProp open_device(int index) {
  int count = 0;
  check(cudaGetDeviceCount(&count), "looking for GPUs");
  if (index < 0 || index >= count)
    throw Error("ERR_DEVICE", detail::join(kDeviceName, ": there is no GPU ", index, "; this machine has ",
                                           count, ", counted from 0"));
  check(cudaSetDevice(index), "choosing the device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "asking for the GPU's properties");
  const int arch = 10 * properties.major + properties.minor;
  if (arch < kOldestArch)
    throw Error("ERR_DEVICE",
                detail::join(kDeviceName, ": ", properties.name, " has compute capability ", properties.major,
                             ".", properties.minor, "; 8.0 (Ampere) or newer is needed: use the device cpu"));
  return properties;
}

// KOTOBA_VRAM, MiB, or all of the card but a tenth: the driver and the desktop need some.
int64_t memory_budget(int64_t total) {
  const char* text = std::getenv("KOTOBA_VRAM");
  if (!text || !*text) return total - total / 10;
  char* end = nullptr;
  const long long mebibytes = std::strtoll(text, &end, 10);
  require(*end == '\0' && mebibytes > 0, "KOTOBA_VRAM: expected a number of MiB, got \"", text, "\"");
  return int64_t{mebibytes} << 20;
}

}  // namespace

CudaBackend::CudaBackend(int index) : index_(index), properties_(open_device(index)), uploader_(index) {
  const auto total = static_cast<int64_t>(properties_.totalGlobalMem);
  pool_ = std::make_shared<MemoryPool>(index, memory_budget(total));
  stream_ = std::make_unique<Stream>();
  context_ = std::make_unique<Context>(
      Context{*stream_, *pool_, 10 * properties_.major + properties_.minor, properties_.multiProcessorCount});
  report_ = std::make_unique<Report>(*context_);
}

// What is under way may still use the pinned buffers.
CudaBackend::~CudaBackend() {
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_->get());
}

DeviceInfo CudaBackend::info() const {
  const std::string arch = std::to_string(properties_.major) + std::to_string(properties_.minor);
  const std::string name = index_ == 0 ? kDeviceName : detail::join(kDeviceName, ":", index_);
  return {name, properties_.name, "sm_" + arch, properties_.multiProcessorCount,
          static_cast<int64_t>(properties_.totalGlobalMem)};
}

// ---- memory

std::byte* CudaBackend::allocate(int64_t bytes) { return pool_->allocate(bytes); }

void CudaBackend::release(std::byte* data, int64_t) noexcept { pool_->release(data); }

bool CudaBackend::watches_memory() const { return kSimulated; }

BlockPtr CudaBackend::adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) {
  std::byte* data = pool_->allocate(bytes);
  auto block = std::make_shared<Block>(data, bytes, [pool = pool_, data] { pool->release(data); });
  if (bytes > 0) uploader_.add(block, std::move(file), offset, bytes);
  return block;
}

// ---- order

const Context& CudaBackend::begin() {
  check(cudaSetDevice(index_), "choosing the device");
  uploader_.wait();
  if (ops_++ % kOpsToMark == 0) {
    const Event& mark = marks_[ops_ / kOpsToMark % kMarks];
    mark.wait();
    stream_->record(mark);
  }
  return *context_;
}

void CudaBackend::finish() {
  begin();
  stream_->wait();
  report_->raise();
}

void CudaBackend::upload(TensorView out, const std::byte* host) {
  staging_.upload(begin().stream, out, host);
}

void CudaBackend::download(std::byte* host, TensorView x) { staging_.download(begin().stream, host, x); }

// ---- ops

void CudaBackend::linear(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Precision) {
  cuda::linear(begin(), out, x, w, epilogue);
}

// Computed on the host, whose logarithm decides the bucket at the borders of the ranges on every device.
const int32_t* CudaBackend::distance_buckets(const Attention& how) {
  if (how.bias_table.empty()) return nullptr;
  const int64_t buckets = how.bias_table.rows(), most = how.max_distance;
  std::unique_ptr<Scratch>& known = buckets_[{buckets, how.bidirectional, most}];
  if (!known) {
    std::vector<int32_t> table;
    for (int64_t distance = -most; distance <= most; ++distance)
      table.push_back(relative_bucket(distance, static_cast<int>(buckets), how.bidirectional, most));
    const auto bytes = static_cast<int64_t>(table.size() * sizeof(int32_t));
    auto memory = std::make_unique<Scratch>(*pool_, bytes);
    TensorView view;
    view.data = memory->as<std::byte>();
    view.dtype = DType::I32;
    view.rank = 1;
    view.shape[0] = view.row_stride = static_cast<int64_t>(table.size());
    staging_.upload(*stream_, view, reinterpret_cast<const std::byte*>(table.data()));
    known = std::move(memory);
  }
  return known->as<int32_t>();
}

void CudaBackend::attention(TensorView out, TensorView q, TensorView k, TensorView v, Attention how) {
  const Context& context = begin();
  cuda::attention(context, out, q, k, v, how, distance_buckets(how));
}

void CudaBackend::rms_norm(TensorView out, TensorView x, TensorView weight, float eps) {
  cuda::rms_norm(begin(), out, x, weight, eps);
}

void CudaBackend::layer_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, float eps) {
  cuda::layer_norm(begin(), out, x, weight, bias, eps);
}

void CudaBackend::layer_norm_modulated(TensorView out, TensorView x, TensorView shift, TensorView scale,
                                       float eps) {
  cuda::layer_norm_modulated(begin(), out, x, shift, scale, eps);
}

void CudaBackend::head_norm_rope(TensorView out, TensorView x, TensorView weight, TensorView rotation,
                                 HeadNormRope how) {
  cuda::head_norm_rope(begin(), out, x, weight, rotation, how);
}

void CudaBackend::copy_tokens(TensorView out, TensorView x, CopyTokens how) {
  cuda::copy_tokens(begin(), out, x, how);
}

void CudaBackend::activate(TensorView out, TensorView x, Activation activation) {
  cuda::activate(begin(), out, x, activation);
}

void CudaBackend::combine(TensorView out, Terms terms) { cuda::combine(begin(), out, terms); }

void CudaBackend::conv2d(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Conv2d how,
                         Precision) {
  cuda::conv2d(begin(), out, x, w, epilogue, how);
}

void CudaBackend::conv_weight(TensorView out, TensorView w, int64_t taps) {
  cuda::conv_weight(begin(), out, w, taps);
}

void CudaBackend::group_norm(TensorView out, TensorView x, TensorView weight, TensorView bias,
                             GroupNorm how) {
  cuda::group_norm(begin(), out, x, weight, bias, how);
}

void CudaBackend::patchify(TensorView out, TensorView x, Patches how) {
  cuda::patchify(begin(), out, x, how);
}

void CudaBackend::unpatchify(TensorView out, TensorView x, Patches how) {
  cuda::unpatchify(begin(), out, x, how);
}

void CudaBackend::embedding(TensorView out, TensorView table, TensorView ids, bool accumulate) {
  cuda::embedding(begin(), *report_, out, table, ids, accumulate);
}

void CudaBackend::decode(TensorView out, TensorView x) { cuda::decode(begin(), out, x); }

void CudaBackend::transpose(TensorView out, TensorView x) { cuda::transpose(begin(), out, x); }

void CudaBackend::require_finite(TensorView x, std::string where) {
  cuda::require_finite(begin(), *report_, x, std::move(where));
}

}  // namespace kotoba::cuda
