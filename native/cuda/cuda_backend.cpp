#include "cuda_backend.h"

#include <cstring>
#include <vector>

#include "../relative_position.h"
#include "gpu.h"
#include "ops.h"

namespace kotoba::cuda {
namespace {

// x [count], dense
TensorView vector_view(std::byte* data, DType dtype, int64_t count) {
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.rank = 1;
  view.shape[0] = view.row_stride = count;
  return view;
}

}  // namespace

CudaBackend::CudaBackend(int index, int64_t memory) : index_(index), properties_(open_gpu(index)) {
  const int64_t budget = memory_budget(static_cast<int64_t>(properties_.totalGlobalMem), memory);
  pool_ = std::make_shared<MemoryPool>(index, budget);
  forms_ = std::make_unique<WeightForms>(pool_);
  stream_ = std::make_unique<Stream>();
  weights_ = std::make_shared<WeightStore>(index, pool_, *forms_, *stream_);
  context_ =
      std::make_unique<Context>(Context{*stream_, *pool_, *forms_, 10 * properties_.major + properties_.minor,
                                        properties_.multiProcessorCount});
  report_ = std::make_unique<Report>(*context_);
  graphs_ = std::make_unique<Graphs>(*context_, pool_, *weights_, *report_);
}

// What is under way may still use the pinned buffers.
CudaBackend::~CudaBackend() {
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_->get());
}

DeviceInfo CudaBackend::info() const {
  const std::string arch = std::to_string(properties_.major) + std::to_string(properties_.minor);
  return {gpu_name(index_), properties_.name, "sm_" + arch, properties_.multiProcessorCount,
          static_cast<int64_t>(properties_.totalGlobalMem)};
}

DeviceUse CudaBackend::use() const {
  const MemoryPool::Use memory = pool_->use();
  const WeightStore::Use weights = weights_->use();
  const Graphs::Use graphs = graphs_->use();
  return {memory.budget,   memory.used,     memory.peak,      weights.resident, weights.fetched,
          graphs.captured, graphs.launched, graphs.commanded, graphs.refusal};
}

// ---- memory

std::byte* CudaBackend::allocate(int64_t bytes) { return pool_->allocate(bytes); }

void CudaBackend::release(std::byte* data, int64_t) noexcept { pool_->release(data); }

bool CudaBackend::watches_memory() const { return kSimulated; }

BlockPtr CudaBackend::adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) {
  return weights_->adopt(std::move(file), offset, bytes);
}

// ---- order

const Context& CudaBackend::begin(std::initializer_list<TensorView*> reads) {
  check(cudaSetDevice(index_), "choosing the device");
  weights_->let_go();
  forms_->let_go();
  if (!graphs_->capturing() && ops_++ % kOpsToMark == 0) hold_back();
  for (TensorView* view : reads) weights_->locate(*view);
  return *context_;
}

void CudaBackend::hold_back() {
  const Event& mark = marks_[next_mark_++ % kMarks];
  mark.wait();
  stream_->record(mark);
}

void CudaBackend::finish() {
  begin({});
  stream_->wait();
  report_->raise();
  graphs_->sweep();
}

void CudaBackend::replay(Recording& recording) {
  begin({});
  if (!interrupted() && graphs_->replay(recording, *this)) hold_back();
}

void CudaBackend::upload(TensorView out, const std::byte* host) {
  graphs_->refuse("a copy from the host");
  staging_.upload(begin({}).stream, out, host);
}

void CudaBackend::download(std::byte* host, TensorView x) {
  graphs_->refuse("a copy to the host");
  staging_.download(begin({&x}).stream, host, x);
}

// ---- ops

void CudaBackend::linear(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Precision precision) {
  const Context& context =
      begin({&x, &w, &epilogue.scale, &epilogue.bias, &epilogue.multiply, &epilogue.add});
  cuda::linear(context, out, x, w, epilogue, precision);
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
    if (graphs_->capturing()) throw NotCapturableYet("a table of distances is made first");
    const auto count = static_cast<int64_t>(table.size());
    auto memory = std::make_unique<Scratch>(*pool_, count * static_cast<int64_t>(sizeof(int32_t)));
    staging_.upload(*stream_, vector_view(memory->as<std::byte>(), DType::I32, count),
                    reinterpret_cast<const std::byte*>(table.data()));
    known = std::move(memory);
  }
  return known->as<int32_t>();
}

void CudaBackend::attention(TensorView out, TensorView q, TensorView k, TensorView v, Attention how) {
  const Context& context = begin({&q, &k, &v, &how.key_mask, &how.bias_table});
  cuda::attention(context, out, q, k, v, how, distance_buckets(how));
}

void CudaBackend::rms_norm(TensorView out, TensorView x, TensorView weight, float eps) {
  const Context& context = begin({&x, &weight});
  cuda::rms_norm(context, out, x, weight, eps);
}

void CudaBackend::layer_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, float eps) {
  const Context& context = begin({&x, &weight, &bias});
  cuda::layer_norm(context, out, x, weight, bias, eps);
}

void CudaBackend::layer_norm_modulated(TensorView out, TensorView x, TensorView shift, TensorView scale,
                                       float eps) {
  const Context& context = begin({&x, &shift, &scale});
  cuda::layer_norm_modulated(context, out, x, shift, scale, eps);
}

void CudaBackend::head_norm_rope(TensorView out, TensorView x, TensorView weight, TensorView rotation,
                                 HeadNormRope how) {
  const Context& context = begin({&x, &weight, &rotation});
  cuda::head_norm_rope(context, out, x, weight, rotation, how);
}

void CudaBackend::copy_tokens(TensorView out, TensorView x, CopyTokens how) {
  const Context& context = begin({&x});
  cuda::copy_tokens(context, out, x, how);
}

void CudaBackend::activate(TensorView out, TensorView x, Activation activation) {
  const Context& context = begin({&x});
  cuda::activate(context, out, x, activation);
}

void CudaBackend::combine(TensorView out, Terms terms) {
  const Context& context = begin({});
  for (TensorView& x : terms.tensors) weights_->locate(x);
  cuda::combine(context, out, terms);
}

void CudaBackend::conv2d(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Conv2d how,
                         Precision precision) {
  const Context& context =
      begin({&x, &w, &epilogue.scale, &epilogue.bias, &epilogue.multiply, &epilogue.add});
  cuda::conv2d(context, out, x, w, epilogue, how, precision);
}

void CudaBackend::conv_weight(TensorView out, TensorView w, int64_t taps) {
  weights_->read_once(w);
  const Context& context = begin({&w});
  cuda::conv_weight(context, out, w, taps);
}

void CudaBackend::group_norm(TensorView out, TensorView x, TensorView weight, TensorView bias,
                             GroupNorm how) {
  const Context& context = begin({&x, &weight, &bias});
  cuda::group_norm(context, out, x, weight, bias, how);
}

void CudaBackend::patchify(TensorView out, TensorView x, Patches how) {
  const Context& context = begin({&x});
  cuda::patchify(context, out, x, how);
}

void CudaBackend::unpatchify(TensorView out, TensorView x, Patches how) {
  const Context& context = begin({&x});
  cuda::unpatchify(context, out, x, how);
}

void CudaBackend::embedding(TensorView out, TensorView table, TensorView ids, bool accumulate) {
  const Context& context = begin({&ids});
  if (const std::byte* rows = weights_->in_file(table)) {
    if (graphs_->capturing()) throw NotCapturableYet("an embedding's table is not in the GPU's memory");
    return embed_from_file(out, table, rows, ids, accumulate);
  }
  weights_->locate(table);
  cuda::embedding(context, *report_, out, table, ids, accumulate);
}

// A table that is not on the device stays in its file, at `rows`: only the rows of `ids` are copied.
void CudaBackend::embed_from_file(TensorView out, TensorView table, const std::byte* rows, TensorView ids,
                                  bool accumulate) {
  const int64_t tokens = ids.elements(), row_bytes = dtype_bytes(table.dtype, table.cols());
  std::vector<int32_t> wanted(static_cast<size_t>(tokens));
  staging_.download(*stream_, reinterpret_cast<std::byte*>(wanted.data()), ids);
  report_->raise();  // mistakes before this op come first
  std::vector<std::byte> found(static_cast<size_t>(tokens * row_bytes));
  for (int64_t i = 0; i < tokens; ++i) {
    const int32_t id = wanted[static_cast<size_t>(i)];
    if (id < 0 || id >= table.rows()) throw unknown_token(id, i, table.rows());
    std::memcpy(found.data() + i * row_bytes, rows + dtype_bytes(table.dtype, table.row_stride) * id,
                static_cast<size_t>(row_bytes));
    wanted[static_cast<size_t>(i)] = static_cast<int32_t>(i);
  }
  const Scratch new_rows(*pool_, tokens * row_bytes), new_ids(*pool_, dtype_bytes(DType::I32, tokens));
  const TensorView positions = vector_view(new_ids.as<std::byte>(), DType::I32, tokens);
  staging_.upload(*stream_, positions, reinterpret_cast<const std::byte*>(wanted.data()));
  staging_.upload(*stream_, vector_view(new_rows.as<std::byte>(), DType::U8, tokens * row_bytes),
                  found.data());
  table.data = new_rows.as<std::byte>();
  table.rank = 2;
  table.shape = {tokens, table.cols()};
  table.row_stride = table.cols();
  cuda::embedding(*context_, *report_, out, table, positions, accumulate);
}

void CudaBackend::decode(TensorView out, TensorView x) {
  weights_->read_once(x);
  const Context& context = begin({&x});
  cuda::decode(context, out, x);
}

void CudaBackend::transpose(TensorView out, TensorView x) {
  weights_->read_once(x);
  const Context& context = begin({&x});
  cuda::transpose(context, out, x);
}

void CudaBackend::require_finite(TensorView x, std::string where) {
  const Context& context = begin({&x});
  cuda::require_finite(context, *report_, x, std::move(where));
}

}  // namespace kotoba::cuda
