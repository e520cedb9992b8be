// The addon: classes, and one line per op. An op call checks its arguments here and enqueues; it never waits.
#include <napi.h>

#include <tuple>

#include "addon_data.h"
#include "device_object.h"
#include "marshal.h"
#include "op_checks.h"
#include "tensor_object.h"

namespace kotoba::bindings {
namespace {

// Binds a Backend method and its check as a JS function (device, ...arguments).
template <auto method, auto check>
struct Bound;

template <typename... Args, void (Backend::*method)(Args...), auto check>
struct Bound<method, check> {
  static void call(const Napi::CallbackInfo& info) {
    guard(info.Env(), [&] {
      const auto& state = DeviceObject::from(info[0]).state();
      CallArgs args{info.Env(), state.get(), {}};
      auto values = [&]<size_t... I>(std::index_sequence<I...>) {
        return std::tuple<std::decay_t<Args>...>{from_js(args, info[1 + I], Tag<std::decay_t<Args>>{})...};
      }
      (std::index_sequence_for<Args...>{});
      const DeviceLimits limits{state->backend->takes_16_bit()};
      std::apply([&](const auto&... value) { check(limits, value...); }, values);
      state->queue->enqueue([values = std::move(values), keep = std::move(args.keep)](Backend& backend) {
        std::apply([&](const auto&... value) { (backend.*method)(value...); }, values);
      });
    });
  }
};

template <auto method, auto check>
void bind(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<&Bound<method, check>::call>(exports.Env(), name));
}

// setErrorClass(KotobaError)
void set_error_class(const Napi::CallbackInfo& info) {
  info.Env().GetInstanceData<AddonData>()->error_class = Napi::Persistent(info[0].As<Napi::Function>());
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData;
  env.SetInstanceData(data);  // deleted with the environment
  data->tensor_class = Napi::Persistent(TensorObject::init(env));
  exports.Set("setErrorClass", Napi::Function::New<&set_error_class>(env, "setErrorClass"));
  exports.Set("Device", DeviceObject::init(env));
  exports.Set("File", FileObject::init(env));

  bind<&Backend::linear, &check_linear>(exports, "linear");
  bind<&Backend::attention, &check_attention>(exports, "attention");
  bind<&Backend::rms_norm, &check_rms_norm>(exports, "rmsNorm");
  bind<&Backend::layer_norm, &check_layer_norm>(exports, "layerNorm");
  bind<&Backend::layer_norm_modulated, &check_layer_norm_modulated>(exports, "layerNormModulated");
  bind<&Backend::head_norm_rope, &check_head_norm_rope>(exports, "headNormRope");
  bind<&Backend::copy_tokens, &check_copy_tokens>(exports, "copyTokens");
  bind<&Backend::activate, &check_activate>(exports, "activate");
  bind<&Backend::combine, &check_combine>(exports, "combine");
  bind<&Backend::conv2d, &check_conv2d>(exports, "conv2d");
  bind<&Backend::conv_weight, &check_conv_weight>(exports, "convWeight");
  bind<&Backend::group_norm, &check_group_norm>(exports, "groupNorm");
  bind<&Backend::patchify, &check_patchify>(exports, "patchify");
  bind<&Backend::unpatchify, &check_unpatchify>(exports, "unpatchify");
  bind<&Backend::embedding, &check_embedding>(exports, "embedding");
  bind<&Backend::decode, &check_decode>(exports, "decode");
  bind<&Backend::quantize, &check_quantize>(exports, "quantize");
  bind<&Backend::transpose, &check_transpose>(exports, "transpose");
  bind<&Backend::require_finite, &check_require_finite>(exports, "requireFinite");
  return exports;
}

}  // namespace
}  // namespace kotoba::bindings

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return kotoba::bindings::init(env, exports);
}
NODE_API_MODULE(kotoba, init_addon)
