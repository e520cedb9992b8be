// State per JS environment (worker threads load the addon too), and the way native failures become
// KotobaErrors.
#pragma once

#include <napi.h>

#include <exception>
#include <new>

#include "errors.h"

namespace kotoba::bindings {

struct AddonData {
  Napi::FunctionReference error_class;  // KotobaError(code, message), given by native.ts
  Napi::FunctionReference tensor_class;
};

inline Napi::Value make_error(Napi::Env env, const char* code, const char* message) {
  auto* data = env.GetInstanceData<AddonData>();
  if (data->error_class.IsEmpty()) return Napi::Error::New(env, message).Value();
  return data->error_class.New({Napi::String::New(env, code), Napi::String::New(env, message)});
}

// The JS error for a C++ failure of any kind.
inline Napi::Value to_js_error(Napi::Env env, std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return make_error(env, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return make_error(env, "ERR_OUT_OF_MEMORY", "the system has no memory left");
  } catch (const std::exception& error) {
    return make_error(env, "ERR_DEVICE", error.what());
  }
}

// Runs `body`; C++ failures are thrown as KotobaErrors, JS exceptions pass through.
template <typename Body>
auto guard(Napi::Env env, Body body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, to_js_error(env, std::current_exception()));
  }
}

}  // namespace kotoba::bindings
