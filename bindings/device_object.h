// JS `Device`: one backend, its queue and pool. Promises of this environment are settled on its own thread
// through one thread-safe function, which keeps the process alive only while something is awaited.
#pragma once

#include <napi.h>

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "addon_data.h"
#include "device_state.h"

namespace kotoba::bindings {

class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function init(Napi::Env env);
  static DeviceObject& from(Napi::Value value);  // ERR_ARGUMENT, ERR_DISPOSED

  explicit DeviceObject(const Napi::CallbackInfo& info);  // ({ kind: 'cpu', threads })
  ~DeviceObject() override;
  const std::shared_ptr<DeviceState>& state() const { return state_; }

 private:
  struct Done {
    uint64_t id;
    std::exception_ptr failure;
  };
  // Outlives the JS object as long as the worker or a queued wake-up may touch it.
  struct Mailbox {
    std::mutex mutex;
    std::vector<Done> done;
    napi_threadsafe_function wake = nullptr;
  };
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::Reference<Napi::ArrayBuffer> buffer;  // what a read fills; empty for a flush
  };

  Napi::Value describe(const Napi::CallbackInfo& info);
  Napi::Value allocate(const Napi::CallbackInfo& info);
  Napi::Value weight(const Napi::CallbackInfo& info);
  void upload(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value reached(const Napi::CallbackInfo& info);
  Napi::Value flush(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  void trim(const Napi::CallbackInfo& info);
  void begin_capture(const Napi::CallbackInfo& info);
  Napi::Value end_capture(const Napi::CallbackInfo& info);
  void replay(const Napi::CallbackInfo& info);
  void discard(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  static void on_wake(napi_env env, napi_value, void* context, void*);
  static void on_environment_exit(void* self);
  uint64_t expect(Napi::Env env, Pending pending);
  void settle();
  void report_memory(Napi::BasicEnv env);
  void shut_down();

  std::shared_ptr<DeviceState> state_;
  std::shared_ptr<Mailbox> mailbox_;
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_id_ = 1;
  int64_t reported_ = 0;  // bytes of the pool that the garbage collector has been told of
  napi_env hooked_ = nullptr;
};

}  // namespace kotoba::bindings
