#include "device_object.h"

#include <cstring>
#include <utility>

#include "cpu/cpu_backend.h"
#include "device_library.h"
#include "marshal.h"
#include "tensor_object.h"

namespace kotoba::bindings {
namespace {

constexpr napi_type_tag kDeviceTag = {0x6b6f746f62610001, 0x6465766963650001};
constexpr napi_type_tag kRecordingTag = {0x6b6f746f62610001, 0x7265636f72640001};

std::shared_ptr<Backend> open_backend(const Napi::Object& options) {
  const std::string kind = options.Get("kind").ToString().Utf8Value();
  const Napi::Value threads = options.Get("threads");
  const Napi::Value instructions = options.Get("instructions");
  if (kind == "cpu") {
    const int64_t count = threads.IsUndefined() ? 0 : integer_from_js(threads, "device: threads", 1, 1024);
    const std::string set = instructions.IsUndefined() ? "" : instructions.ToString().Utf8Value();
    return std::make_shared<cpu::CpuBackend>(static_cast<int>(count), set);
  }
  if (is_library_device(kind)) {
    const Napi::Value vram = options.Get("vram");
    return open_device_library(
        kind, vram.IsUndefined() ? 0 : integer_from_js(vram, "device: vram", 1, int64_t{1} << 50));
  }
  throw Error("ERR_DEVICE", "device: \"" + kind + "\" is not available in this build; available: cpu, cuda");
}

// The pointer itself: null once the recording was discarded.
std::shared_ptr<Backend::Recording>& recording_from_js(Napi::Value value) {
  using Recording = Napi::External<std::shared_ptr<Backend::Recording>>;
  require(value.IsExternal() && value.As<Recording>().CheckTypeTag(&kRecordingTag), "expected a recording");
  return *value.As<Recording>().Data();
}

}  // namespace

Napi::Function DeviceObject::init(Napi::Env env) {
  return DefineClass(
      env, "NativeDevice",
      {InstanceMethod<&DeviceObject::describe>("describe"),
       InstanceMethod<&DeviceObject::allocate>("allocate"), InstanceMethod<&DeviceObject::weight>("weight"),
       InstanceMethod<&DeviceObject::upload>("upload"), InstanceMethod<&DeviceObject::read>("read"),
       InstanceMethod<&DeviceObject::reached>("reached"), InstanceMethod<&DeviceObject::flush>("flush"),
       InstanceMethod<&DeviceObject::cancel>("cancel"), InstanceMethod<&DeviceObject::trim>("trim"),
       InstanceMethod<&DeviceObject::begin_capture>("beginCapture"),
       InstanceMethod<&DeviceObject::end_capture>("endCapture"),
       InstanceMethod<&DeviceObject::replay>("replay"), InstanceMethod<&DeviceObject::discard>("discard"),
       InstanceMethod<&DeviceObject::close>("close")});
}

DeviceObject::DeviceObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<DeviceObject>(info), mailbox_(std::make_shared<Mailbox>()) {
  const Napi::Env env = info.Env();
  info.This().As<Napi::Object>().TypeTag(&kDeviceTag);
  guard(env, [&] {
    require(info[0].IsObject(), "device: expected { kind, threads }");
    state_ = std::make_shared<DeviceState>(open_backend(info[0].As<Napi::Object>()));
    const napi_value name = Napi::String::New(env, "kotoba.device");
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
                                        &DeviceObject::on_wake, &mailbox_->wake) != napi_ok)
      throw Error("ERR_DEVICE", "device: cannot create a thread-safe function");
    napi_unref_threadsafe_function(env, mailbox_->wake);  // an idle device does not keep the process alive
    const auto complete = [mailbox = mailbox_](uint64_t id, std::exception_ptr failure) {
      std::lock_guard lock(mailbox->mutex);
      mailbox->done.push_back({id, std::move(failure)});
      if (mailbox->done.size() == 1)
        napi_call_threadsafe_function(mailbox->wake, nullptr, napi_tsfn_nonblocking);
    };
    state_->queue = std::make_unique<CommandQueue>(state_->backend, complete);
    napi_add_env_cleanup_hook(env, &DeviceObject::on_environment_exit, this);
    hooked_ = env;
  });
}

DeviceObject::~DeviceObject() {
  if (hooked_) napi_remove_env_cleanup_hook(hooked_, &DeviceObject::on_environment_exit, this);
  shut_down();
  if (reported_ != 0) Napi::MemoryManagement::AdjustExternalMemory(Env(), -reported_);
}

void DeviceObject::on_environment_exit(void* self) {
  auto* device = static_cast<DeviceObject*>(self);
  device->hooked_ = nullptr;
  device->shut_down();
}

void DeviceObject::shut_down() {
  if (!state_ || !state_->queue || state_->queue->closed()) return;
  state_->queue->close();
  napi_release_threadsafe_function(mailbox_->wake, napi_tsfn_abort);
  state_->pool.trim(0);
}

DeviceObject& DeviceObject::from(Napi::Value value) {
  require(value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&kDeviceTag), "expected a device");
  DeviceObject& device = *Unwrap(value.As<Napi::Object>());
  if (!device.state_ || device.state_->queue->closed())
    throw Error("ERR_DISPOSED", "device: used after it was closed");
  return device;
}

void DeviceObject::on_wake(napi_env env, napi_value, void* context, void*) {
  if (!env) return;  // the environment is gone
  try {
    static_cast<DeviceObject*>(context)->settle();
  } catch (const Napi::Error&) {
    // A worker thread is being terminated: no promise of it can be settled any more, and nobody awaits one.
  }
}

// The pool as a whole, not each tensor: a layer's tensors come and go thousands of times a second, and every
// report may start a garbage collection.
void DeviceObject::report_memory(Napi::BasicEnv env) {
  const int64_t reserved = state_->pool.reserved();
  if (reserved != reported_) Napi::MemoryManagement::AdjustExternalMemory(env, reserved - reported_);
  reported_ = reserved;
}

uint64_t DeviceObject::expect(Napi::Env env, Pending pending) {
  if (pending_.empty()) {
    napi_ref_threadsafe_function(env, mailbox_->wake);
    Ref();  // an awaited device is not garbage
  }
  const uint64_t id = next_id_++;
  pending_.emplace(id, std::move(pending));
  return id;
}

void DeviceObject::settle() {
  const Napi::Env env = Env();
  const Napi::HandleScope scope(env);
  std::vector<Done> done;
  {
    std::lock_guard lock(mailbox_->mutex);
    done.swap(mailbox_->done);
  }
  for (const Done& one : done) {
    const auto found = pending_.find(one.id);
    if (found == pending_.end()) continue;
    Pending pending = std::move(found->second);
    pending_.erase(found);
    if (one.failure)
      pending.deferred.Reject(to_js_error(env, one.failure));
    else
      pending.deferred.Resolve(pending.buffer.IsEmpty() ? env.Undefined()
                                                        : Napi::Value(pending.buffer.Value()));
  }
  if (!done.empty() && pending_.empty() && !state_->queue->closed()) {
    napi_unref_threadsafe_function(env, mailbox_->wake);
    Unref();
  }
}

Napi::Value DeviceObject::describe(const Napi::CallbackInfo& call) {
  const Backend& backend = *from(call.This()).state_->backend;
  const DeviceInfo device = backend.info();
  const DeviceUse use = backend.use();
  Napi::Object object = Napi::Object::New(call.Env());
  object["name"] = device.name;
  object["description"] = device.description;
  object["instructions"] = device.instructions;
  object["threads"] = device.threads;
  object["memory"] = double(device.memory);
  object["cached"] = double(state_->pool.cached());
  object["budget"] = double(use.budget);
  object["used"] = double(use.used);
  object["peak"] = double(use.peak);
  object["resident"] = double(use.resident);
  object["fetched"] = double(use.fetched);
  object["graphs"] = double(use.graphs);
  object["launched"] = double(use.launched);
  object["commanded"] = double(use.commanded);
  object["refusal"] = use.refusal;
  return object;
}

// allocate(dtype, shape): uninitialised memory from the pool.
Napi::Value DeviceObject::allocate(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    TensorView view = dense_view_from_js(info[0], info[1]);
    BlockPtr block = state_->pool.acquire(dtype_bytes(view.dtype, view.elements()));
    view.data = block->data;
    return TensorObject::create(info.Env(), std::make_shared<Allocation>(state_, std::move(block), true),
                                view);
  });
}

// weight(file, offset, dtype, shape): a range of a mapped file as a tensor.
Napi::Value DeviceObject::weight(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    const std::shared_ptr<MappedFile>& file = FileObject::from(info[0]);
    TensorView view = dense_view_from_js(info[2], info[3]);
    const int64_t offset = integer_from_js(info[1], "weight: offset", 0, int64_t{1} << 53);
    const int64_t bytes = dtype_bytes(view.dtype, view.elements());
    if (offset > file->size() || bytes > file->size() - offset)
      throw Error("ERR_FILE_READ", detail::join(file->path(), ": expected ", bytes, " bytes at offset ",
                                                offset, ", but the file ends at ", file->size()));
    BlockPtr block = state_->backend->adopt(file, offset, bytes);
    view.data = block->data;
    return TensorObject::create(info.Env(), std::make_shared<Allocation>(state_, std::move(block), false),
                                view);
  });
}

// upload(tensor, typedArray): the bytes are copied before the call returns.
void DeviceObject::upload(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    from(info.This());
    CallArgs args{info.Env(), state_.get(), {}};
    const TensorView out = from_js(args, info[0], Tag<TensorView>{});
    require(info[1].IsTypedArray(), "upload: expected a typed array");
    const auto source = info[1].As<Napi::TypedArray>();
    const size_t bytes = static_cast<size_t>(dtype_bytes(out.dtype, out.elements()));
    require(source.ByteLength() == bytes, "upload: expected ", bytes, " bytes, got ", source.ByteLength());
    const auto* data = static_cast<const std::byte*>(source.ArrayBuffer().Data()) + source.ByteOffset();
    state_->queue->enqueue(
        [out, host = std::vector<std::byte>(data, data + bytes),
         keep = std::move(args.keep)](Backend& backend) { backend.upload(out, host.data()); });
  });
}

// read(tensor): Promise<ArrayBuffer> of the dense bytes, after everything enqueued so far.
Napi::Value DeviceObject::read(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    from(info.This());
    CallArgs args{env, state_.get(), {}};
    const TensorView x = from_js(args, info[0], Tag<TensorView>{});
    auto buffer = Napi::ArrayBuffer::New(env, static_cast<size_t>(dtype_bytes(x.dtype, x.elements())));
    auto* host = static_cast<std::byte*>(buffer.Data());
    const auto deferred = Napi::Promise::Deferred::New(env);
    require(!state_->queue->capturing(), "read: cannot wait for a result while capturing");
    const uint64_t id = expect(env, {deferred, Napi::Persistent(buffer)});
    state_->queue->enqueue_wait(
        id, [x, host, keep = std::move(args.keep)](Backend& backend) { backend.download(host, x); });
    return deferred.Promise();
  });
}

// reached(): resolves when the queue has come this far; for progress.
Napi::Value DeviceObject::reached(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    require(!state_->queue->capturing(), "reached: cannot wait while capturing");
    const auto deferred = Napi::Promise::Deferred::New(info.Env());
    state_->queue->enqueue_wait(expect(info.Env(), {deferred, {}}), nullptr);
    return deferred.Promise();
  });
}

Napi::Value DeviceObject::flush(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    from(info.This());
    require(!state_->queue->capturing(), "flush: cannot wait while capturing");
    const auto deferred = Napi::Promise::Deferred::New(info.Env());
    state_->queue->enqueue_flush(expect(info.Env(), {deferred, {}}));
    return deferred.Promise();
  });
}

void DeviceObject::cancel(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] { from(info.This()).state_->queue->cancel(); });
}

// trim(bytes): gives cached memory beyond `bytes` back to the system, on the queue's thread: unmapping takes
// milliseconds.
void DeviceObject::trim(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    from(info.This());
    require(!state_->queue->capturing(), "trim: cannot drop memory while capturing");
    auto dropped = state_->pool.trim(integer_from_js(info[0], "trim: bytes", 0, int64_t{1} << 50));
    if (!dropped.empty()) {
      state_->queue->enqueue([blocks = std::move(dropped)](Backend&) {});
      state_->queue->submit();
    }
    report_memory(info.Env());
  });
}

void DeviceObject::begin_capture(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    from(info.This()).state_->queue->begin_capture();
    state_->pool.begin_capture();
  });
}

Napi::Value DeviceObject::end_capture(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    using Recording = std::shared_ptr<Backend::Recording>;
    auto* recording = new Recording(from(info.This()).state_->queue->end_capture());
    state_->pool.end_capture();
    auto external =
        Napi::External<Recording>::New(info.Env(), recording, [](Napi::BasicEnv, Recording* r) { delete r; });
    external.TypeTag(&kRecordingTag);
    return external;
  });
}

void DeviceObject::replay(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    from(info.This());
    const auto recording = recording_from_js(info[0]);
    if (!recording) throw Error("ERR_DISPOSED", "replay: the recording was discarded");
    state_->queue->enqueue([recording](Backend& backend) { backend.replay(*recording); });
  });
}

// discard(recording): gives its memory back once what is queued of it has run; it cannot be replayed again.
void DeviceObject::discard(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    auto recording = std::exchange(recording_from_js(info[0]), nullptr);
    if (!recording || !state_ || state_->queue->closed()) return;
    state_->queue->enqueue([recording = std::move(recording)](Backend&) {});
    state_->queue->submit();
  });
}

void DeviceObject::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  shut_down();
  if (!pending_.empty()) Unref();
  for (auto& [id, pending] : pending_)
    pending.deferred.Reject(make_error(env, "ERR_DISPOSED", "device: closed before the result was ready"));
  pending_.clear();
}

}  // namespace kotoba::bindings
