// JS `Tensor` and `File` handles: each owns one reference, type-tagged, with an idempotent dispose().
#pragma once

#include <napi.h>

#include <memory>

#include "device_state.h"
#include "mapped_file.h"

namespace kotoba::bindings {

class TensorObject : public Napi::ObjectWrap<TensorObject> {
 public:
  static Napi::Function init(Napi::Env env);
  static Napi::Object create(Napi::Env env, std::shared_ptr<Allocation> allocation, const TensorView& view);
  static TensorObject& from(Napi::Value value);  // ERR_ARGUMENT, ERR_DISPOSED

  explicit TensorObject(const Napi::CallbackInfo& info);
  const Allocation& allocation() const { return *allocation_; }
  const TensorView& view() const { return view_; }

 private:
  Napi::Value rows(const Napi::CallbackInfo& info);
  Napi::Value columns(const Napi::CallbackInfo& info);
  Napi::Value reshape(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Allocation> allocation_;
  TensorView view_;
};

// A memory-mapped file; the map lives on while tensors made from it do.
class FileObject : public Napi::ObjectWrap<FileObject> {
 public:
  static Napi::Function init(Napi::Env env);
  static const std::shared_ptr<MappedFile>& from(Napi::Value value);

  explicit FileObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value size(const Napi::CallbackInfo& info);
  Napi::Value intact(const Napi::CallbackInfo& info);
  void prefetch(const Napi::CallbackInfo& info);
  void forget(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<MappedFile> file_;
};

}  // namespace kotoba::bindings
