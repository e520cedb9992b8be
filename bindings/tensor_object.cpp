#include "tensor_object.h"

#include "addon_data.h"
#include "marshal.h"
#include "prefetch.h"

namespace kotoba::bindings {
namespace {

// [offset, bytes, offset, bytes, …]
std::vector<ByteRange> ranges_from_js(Napi::Value value, const MappedFile& file) {
  require(value.IsArray(), "file: expected an array of offsets and sizes");
  const auto numbers = value.As<Napi::Array>();
  std::vector<ByteRange> ranges;
  for (uint32_t i = 0; i + 1 < numbers.Length(); i += 2) {
    const int64_t offset = integer_from_js(numbers.Get(i), "file: offset", 0, file.size());
    const int64_t bytes = integer_from_js(numbers.Get(i + 1), "file: bytes", 0, file.size() - offset);
    ranges.push_back({offset, bytes});
  }
  return ranges;
}

constexpr napi_type_tag kTensorTag = {0x6b6f746f62610001, 0x74656e736f720001};
constexpr napi_type_tag kFileTag = {0x6b6f746f62610001, 0x66696c6500000001};

void require_tag(Napi::Value value, const napi_type_tag& tag, const char* what) {
  require(value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&tag), "expected ", what);
}

}  // namespace

Napi::Function TensorObject::init(Napi::Env env) {
  return DefineClass(
      env, "NativeTensor",
      {InstanceMethod<&TensorObject::rows>("rows"), InstanceMethod<&TensorObject::columns>("columns"),
       InstanceMethod<&TensorObject::reshape>("reshape"), InstanceMethod<&TensorObject::dispose>("dispose")});
}

TensorObject::TensorObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TensorObject>(info) {
  info.This().As<Napi::Object>().TypeTag(&kTensorTag);
}

Napi::Object TensorObject::create(Napi::Env env, std::shared_ptr<Allocation> allocation,
                                  const TensorView& view) {
  const Napi::Object object = env.GetInstanceData<AddonData>()->tensor_class.New({});
  TensorObject& tensor = *Unwrap(object);
  tensor.allocation_ = std::move(allocation);
  tensor.view_ = view;
  return object;
}

TensorObject& TensorObject::from(Napi::Value value) {
  require_tag(value, kTensorTag, "a tensor");
  TensorObject& tensor = *Unwrap(value.As<Napi::Object>());
  if (!tensor.allocation_) throw Error("ERR_DISPOSED", "tensor: used after dispose()");
  return tensor;
}

void TensorObject::dispose(const Napi::CallbackInfo&) { allocation_.reset(); }

// rows(start, end): rows of the first dimension.
Napi::Value TensorObject::rows(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    require(view_.rank >= 1, "tensor: a scalar has no rows");
    const int64_t start = integer_from_js(info[0], "tensor: first row", 0, view_.shape[0]);
    const int64_t end = integer_from_js(info[1], "tensor: end row", start, view_.shape[0]);
    require(view_.rank > 1 || kotoba::info(view_.dtype).block == 1, "tensor: blocks cannot be cut");
    TensorView view = view_;
    const int64_t inner = view_.shape[0] == 0 ? 0 : view_.rows() / view_.shape[0] * view_.row_stride;
    view.shape[0] = end - start;
    view.data += view_.rank == 1 ? dtype_bytes(view.dtype, start) : dtype_bytes(view.dtype, inner * start);
    if (view_.rank == 1) view.row_stride = view.cols();
    return create(info.Env(), allocation_, view);
  });
}

// columns(start, end) of a plain dtype: a strided view.
Napi::Value TensorObject::columns(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    require(view_.rank >= 2 && kotoba::info(view_.dtype).block == 1,
            "tensor: columns need a matrix of a plain dtype");
    const int64_t start = integer_from_js(info[0], "tensor: first column", 0, view_.cols());
    const int64_t end = integer_from_js(info[1], "tensor: end column", start, view_.cols());
    TensorView view = view_;
    view.shape[view.rank - 1] = end - start;
    view.data += dtype_bytes(view.dtype, start);
    return create(info.Env(), allocation_, view);
  });
}

Napi::Value TensorObject::reshape(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    require(view_.dense(), "tensor: only dense tensors can be reshaped");
    TensorView view =
        dense_view_from_js(Napi::String::New(info.Env(), kotoba::info(view_.dtype).name), info[0]);
    require(view.elements() == view_.elements(), "tensor: reshape of ", view_.elements(), " elements into ",
            view.elements());
    view.data = view_.data;
    return create(info.Env(), allocation_, view);
  });
}

Napi::Function FileObject::init(Napi::Env env) {
  return DefineClass(
      env, "NativeFile",
      {InstanceMethod<&FileObject::size>("size"), InstanceMethod<&FileObject::intact>("intact"),
       InstanceMethod<&FileObject::prefetch>("prefetch"), InstanceMethod<&FileObject::forget>("forget"),
       InstanceMethod<&FileObject::dispose>("dispose")});
}

FileObject::FileObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FileObject>(info) {
  info.This().As<Napi::Object>().TypeTag(&kFileTag);
  guard(info.Env(), [&] {
    require(info[0].IsString(), "file: expected a path");
    file_ = std::make_shared<MappedFile>(info[0].As<Napi::String>().Utf8Value());
  });
}

const std::shared_ptr<MappedFile>& FileObject::from(Napi::Value value) {
  require_tag(value, kFileTag, "a mapped file");
  const auto& file = Unwrap(value.As<Napi::Object>())->file_;
  if (!file) throw Error("ERR_DISPOSED", "file: used after dispose()");
  return file;
}

Napi::Value FileObject::size(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return Napi::Number::New(info.Env(), double(from(info.This())->size())); });
}

Napi::Value FileObject::intact(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return Napi::Boolean::New(info.Env(), from(info.This())->intact()); });
}

void FileObject::prefetch(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    const std::shared_ptr<MappedFile>& file = from(info.This());
    kotoba::prefetch(file, ranges_from_js(info[0], *file));
  });
}

void FileObject::forget(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    const std::shared_ptr<MappedFile>& file = from(info.This());
    for (const ByteRange& range : ranges_from_js(info[0], *file)) file->forget(range.offset, range.bytes);
  });
}

void FileObject::dispose(const Napi::CallbackInfo&) { file_.reset(); }

}  // namespace kotoba::bindings
